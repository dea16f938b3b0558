"""Amazon's S3 REST API: requests to verbs, results to responses.

app         routes by bucket, key and subresource; what is not in the table is NotImplemented
auth        who signed a request, by whichever scheme
sigv4       signature version 4: header, query, chunks (pure)
sigv2       signature version 2 in the query (pure)
chunked     the aws-chunked coding: signed chunks and trailers
checksums   x-amz-checksum-*, Content-MD5, x-amz-content-sha256
objects buckets uploads    the verbs of each
xml         documents in and out
errors      the error tree as S3's codes
"""
