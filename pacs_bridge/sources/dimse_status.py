"""What a status means for a search or a retrieval (PS3.4 C.4, PS3.7 annex C)."""

from __future__ import annotations

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, PermanentError, TransientError

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
#: C-GET and C-MOVE: over, and some sub-operations failed or warned. Which, the files tell.
SOME_FAILED = 0xB000
MOVE_DESTINATION_UNKNOWN = 0xA801
_NOT_AUTHORIZED = 0x0124
_CANCELLED = 0xFE00
_PASSING = (0x0110, 0x0213, _CANCELLED)


def refusal(status: int, what: str) -> BridgeError:
    """The error for a final status that is no success.

    Out of resources (A7xx), unable to process (Cxxx) and failures of the archive's own pass;
    what is wrong with the request or the configuration does not.

    Parameters
    ----------
    status
        Of the response.
    what
        Names archive and service.
    """
    said = f"{what}: status {status:04X}H"
    if status == _NOT_AUTHORIZED:
        return PermanentError(Reason.NOT_AUTHORISED, said)
    if status == MOVE_DESTINATION_UNKNOWN:
        # also what some answer that cannot reach us: either side may put that right
        return TransientError(
            Reason.SOURCE_REFUSED, f"{said}: it does not know move_ae_title, or cannot reach it"
        )
    if status in _PASSING or status >> 8 == 0xA7 or status >> 12 == 0xC:
        return TransientError(Reason.SOURCE_UNREACHABLE, said)
    return PermanentError(Reason.SOURCE_REFUSED, said)
