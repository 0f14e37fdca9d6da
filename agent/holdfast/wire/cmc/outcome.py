"""What several statuses come to, and what a refusal means for the ladder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.wire.cmc.status import StatusInfo
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import Rejected

_WORST_FIRST: Final = (
    Status.FAILED,
    Status.NO_SUPPORT,
    Status.POP_REQUIRED,
    Status.PENDING,
    Status.PARTIAL,
    Status.CONFIRM_REQUIRED,
    Status.SUCCESS,
)
_BUSY: Final = frozenset({FailInfo.TRY_LATER, FailInfo.INTERNAL_CA_ERROR})
_UNSUPPORTED: Final = frozenset({FailInfo.BAD_ALG, FailInfo.UNSUPPORTED_EXT, FailInfo.MUST_ARCHIVE_KEYS})
_ESTRANGED: Final = frozenset({FailInfo.BAD_IDENTITY, FailInfo.BAD_MESSAGE_CHECK})


def worst(statuses: Iterable[StatusInfo]) -> StatusInfo | None:
    """The one that counts. None means success: a status may then be left out (RFC 10002 §6.1.2)."""
    return min(statuses, key=lambda s: _WORST_FIRST.index(s.status), default=None)


def refusal(status: StatusInfo) -> Rejected:
    """A failure as an outcome. Raises RemoteProtocolError ``cmc.tryLater``, ``cmc.internalCAError`` (busy)
    for one that may pass by itself."""
    if status.fail in _BUSY:
        clause = "RFC 10002 §6.1.4"
        raise RemoteProtocolError(f"cmc.{status.word}", status.describe(), clause=clause, busy=True)
    unsupported = status.status is Status.NO_SUPPORT or status.fail in _UNSUPPORTED
    estranged = status.fail in _ESTRANGED
    return Rejected(f"cmc.{status.word}", status.describe(), unsupported=unsupported, estranged=estranged)
