"""The front door's objects for the rooms above it, in process.

interface   Objects: head and read with manifests understood, and the container behind a bucket
objects     ObjectsClient, over storage
fake        FakeObjects, in RAM
"""
