"""The front door: S3 and Swift as two dialects over one set of object operations.

bytes -> dialect parser -> typed operation -> gates -> core -> typed result -> dialect writer

operations/  the verbs, free of dialect: accounts, containers, objects, bucket names
large/       objects in parts: the manifest, uploads and their states, reading, removing what nobody owns any more
gates/       what must hold before a verb runs: limits, access, memory
pipeline     the gates in their order, with the reasons for it
swift/       Swift's API v1 over the verbs
s3/          Amazon's S3 REST API over the verbs
app          which dialect a request speaks; ``make_app`` builds the whole handler
errors       the one error tree; swift/errors and s3/errors word it
client/      what the rooms above use, in process and without HTTP
"""
