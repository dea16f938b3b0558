"""Swift's object API v1: requests to verbs, results to responses.

app         method and path to verb, and back
parse       paths, headers and query of a request
bulk        many deletes in one
dlo         dynamic large objects, read as one
listing     pages as text, JSON or XML
info        /info and /healthcheck
errors      the error tree as status, headers and HTML
"""
