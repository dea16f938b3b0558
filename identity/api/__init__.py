"""The Identity API v3 over HTTP.

app         routes and the error form
auth        tokens: POST GET HEAD DELETE /v3/auth/tokens, /v3/auth/catalog, /v3/auth/projects
resources   domains, projects, users, roles, regions, services, endpoints; grants; EC2 credentials
render      records and sessions as the API words them
"""
