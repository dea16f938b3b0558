"""Settings of all tests: hypothesis has no deadline, because how long an example takes says nothing about whether it is right."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ringfort", deadline=None, print_blob=True)
settings.load_profile("ringfort")
