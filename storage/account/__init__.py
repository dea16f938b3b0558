"""Accounts: books whose rows are containers.

book.py     how an account comes to be, and when it may be deleted.  Pure

Rows arrive as reports of containers (storage.container.stats) and merge by storage.rows.merge; listings are
storage.container.listing's.
"""
