"""Volumes and images for the rooms above.

interface   Images, Volumes, and what they speak of
local       LocalVolumes: desired state in kv
fake        FakeVolumes, for tests
"""
