"""How Hypothesis works in the unit tests: no deadline, since the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("unit")
