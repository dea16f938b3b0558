"""Accounts: books whose rows are containers.

book.py     how an account comes to be, and how it goes.  Pure
reaper.py   a Worker: removes what is in deleted accounts

Rows arrive as reports of containers (storage.container.stats) and merge by storage.rows.merge; listings are
storage.container.listing's.
"""
