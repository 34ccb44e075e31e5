"""What can go wrong between peers, disk and work; every error says whether to try again."""

from __future__ import annotations

import errno

from inference.reasons import Reason

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BridgeError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    reason
        The closed code that the command line, the ledger, the logs and the docs share.
    detail
        What was found, with the file, peer or value; free of patient data.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(BridgeError):
    """Trying again later may help."""

    wait_s: float = 0.0  #: for which the other side asked to be left alone


class PermanentError(BridgeError):
    """Trying again will not help."""


def disk_reason(error: OSError) -> Reason:
    """``disk-full`` where that is what went wrong with a file, else ``internal-error``.

    Parameters
    ----------
    error
        As the system raised it, or as pydicom raises it anew, without the system's number.
    """
    cause: BaseException | None = error
    while isinstance(cause, OSError) and cause.errno is None:
        cause = cause.__cause__
    is_full = isinstance(cause, OSError) and cause.errno in _NO_SPACE
    return Reason.DISK_FULL if is_full else Reason.INTERNAL_ERROR
