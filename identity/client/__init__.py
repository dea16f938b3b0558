"""What the other rooms may import of identity.

interface   Access, S3Key, the Identity protocol, Unauthorized and Forbidden
local       LocalIdentity: answers from this process's view of kv
gate        wraps a control API's handler: a valid X-Auth-Token or 401
fake        identities in RAM, for tests
"""
