"""How hard the property tests try."""

from __future__ import annotations

from hypothesis import settings


def at_least(examples: int) -> int:
    """For a property whose examples cost next to nothing: many, and no fewer than `make fuzz` asks for."""
    return max(examples, settings.default.max_examples)
