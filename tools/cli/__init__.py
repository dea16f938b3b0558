"""The ``ringfort`` command: one module per noun.

main   which module serves a noun, how errors look
ring   ring and builder files
up     run a cloud
"""
