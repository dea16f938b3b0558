"""Last-write-wins rows in books: what one device knows of containers (rows are objects) and accounts (rows are containers).

merge.py    the one merge rule, of rows and of headers.  Pure
row.py      bytes of a row and of a header, checked.  Pure
page.py     many rows as one packed sequence: decoded when somebody looks, compared by bytes.  Pure
names.py    where a name lies in the ordered tables, longer than their keys or not.  Pure but for scanning
log.py      the commit log's frames and segments.  Pure
commit.py   group commit: everything waiting in one append and one sync
overlay.py  rows that are durable in the log and not yet in the tables.  Pure
books.py    Books: the book half of a Node, on one device
tables.py   the device's tables, errors as DiskFaults
replay.py   the commit log at a start
apply.py    from overlay to tables, in sorted batches

Formats: docs/formats/rows.md.
"""
