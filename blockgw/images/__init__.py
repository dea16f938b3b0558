"""Images as bytes: immutable parts in a hidden account, and a manifest that says which.

inspect   pure: which disk format the first bytes show
store     ImageStore: cut a stream or an object into parts, read by range, delete when no volume reads from it
"""
