"""Why a challenge cannot be shown."""

from __future__ import annotations

from holdfast.wire.errors import HoldfastError


class SolverError(HoldfastError):
    """This host could not show what a challenge asks for. It may later."""
