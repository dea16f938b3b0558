"""Volumes and images for the rooms above.

interface   Images, Volumes, and what they speak of
local       LocalVolumes: desired state in kv
owner       who holds something in kv, and when a holder is known to be dead
fake        FakeVolumes, for tests
"""
