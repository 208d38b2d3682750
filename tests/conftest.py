"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# No deadline per example: a busy machine is no bug, and pytest's own limit catches what hangs.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")
