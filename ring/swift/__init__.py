"""Swift's own ring files, read and written without Swift: docs/formats/swift-ring.md.

    builderpickle.py  the few opcodes of pickle that a .builder is made of: values <-> bytes; nothing is ever called
    swiftbuilder.py   .builder <-> Builder
    ringgz.py         .ring.gz <-> Builder, as far as a ring says what its builder was
    devices.py        a device as Swift's files have it <-> Device

Pure; numpy.  For the operator's tools: nothing that a running node imports is in here, and nothing of Swift is imported.
"""
