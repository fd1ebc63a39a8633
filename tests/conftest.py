"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# No test asserts a time, and a busy machine is no failure.
settings.register_profile("lineshaft", deadline=None)
settings.load_profile("lineshaft")
