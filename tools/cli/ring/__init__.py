"""``ringfort ring FILE VERB``: make and change rings, with swift-ring-builder's words and exit codes.

group.py    the click group, the table of verbs, and how to add one
file.py     RingFile: the builder file, its ring beside it, backups, two operators at once
show.py     the table, and --json of it
"""
