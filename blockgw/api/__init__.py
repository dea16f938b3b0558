"""The Block Storage API v3 (Cinder) over the Volumes protocol.

app      routes, version documents, one default volume type
volumes  create, show, list, update, delete
"""
