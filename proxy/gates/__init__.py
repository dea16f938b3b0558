"""What must hold before a verb runs; ``proxy/pipeline.py`` has their order and its reasons.

limits      names, metadata and sizes
access      who may do what: the account's project, administrators, container ACLs
memory      a budget of body buffers for the process
"""
