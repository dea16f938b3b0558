"""Containers: what a listing is made of, and what a container tells its account.

listing.py  several replicas' rows merged into one page of a listing; what to fetch next.  Pure
stats.py    reports to the account: what they say and who owes one.  Pure

A container's rows lie in a book (storage.rows); quorums are storage.client's.
"""
