"""The verbs, free of dialect: typed operations in, typed results out, over ``storage.client``.

verbs       the operations and results themselves (frozen dataclasses), and the right that each needs
reads       preconditions of reads and one byte range, as both dialects ask for them
several     several ranges of an object as one body
bodies      bodies on their way: from a reading to a writer, small ones in one piece
objects     put, get, head, post, delete, copy
books       accounts and containers
buckets     which project holds which bucket name
"""
