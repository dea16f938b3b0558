"""HTTP/1.1 over World's streams: a server, a client, and the pure parts that handlers share.

    message           Request, Response, Headers, Body: what the rest of Ringfort sees
    server            serve(): accept, time limits, drain
    connection        one server connection's life
    service           what connections share: Limits, LogLine
    client, pool      Client: pooled connections, small calls, streamed bodies
    engine            bytes to heads and bodies: the interface, the framing rules, the chunked decoder
    httptools_engine  the hot path's engine;  h11_engine the reference it is compared with
    encode            heads that go out, safe from line breaks in values
    router            paths with parameters to handlers, 404 and 405 in each API's words
    ranges, conditions, dates, query      Range, If-*, HTTP dates, percent-encodings: pure
    jsonapi           JSON bodies in and out for the control APIs

A handler is ``async (Request) -> Response``; nothing above this room parses or frames HTTP.
"""
