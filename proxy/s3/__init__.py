"""Amazon's S3 REST API: requests to verbs, results to responses.

app         routes by bucket, key and subresource; what is not in the table is NotImplemented
call        one request taken apart, and what every handler needs
auth        who signed a request, by whichever scheme
sigv4       signature version 4: header, query, chunks (pure)
sigv2       signature version 2 in the query (pure)
chunked     the aws-chunked coding: signed chunks and trailers
checksums   x-amz-checksum-*, Content-MD5, x-amz-content-sha256
crc         CRC32C and CRC64NVME (pure)
objects     get, head, put, copy, delete
buckets     make, look, list, delete, many deletes in one
uploads     multipart
settings    what was never set: policies, tags, CORS, ...
document    an XML body, read whole and checked
xml         documents in and out
errors      the error tree as S3's codes
"""
