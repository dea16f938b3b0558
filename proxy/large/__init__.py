"""Objects in parts: S3 multipart uploads, and later Swift's large objects.

A large object is a small object, its *manifest*, that names immutable *parts*.  Parts live in the hidden account of the project's
account, in the container of the same name, below ``parts/<upload>/<number>/<nonce>``; a part that is sent again is a new object.
Each upload has a *record* ``uploads/<upload>`` whose content type tells its state, so that a listing shows it:

    open --complete--> completing --manifest stored--> complete --manifest gone--> doomed --grace over--> (gone)
      \\--abort------------------------------------------------------------------->/

Every change of state is a conditional write on the record, so complete and abort cannot both win, and the parts of a
manifest that was acknowledged are never removed before the manifest is known to be gone.

    manifest    the codec of the manifest's body and its headers (docs/formats/manifest.md)
    records     the codec of an upload's record and the names of things
    shelf       the hidden container of one container's records and parts
    uploads     the verbs: create, upload part, list, complete, abort
    reader      a manifest read as one body
    sweeper     the Worker that moves records along and removes parts
"""
