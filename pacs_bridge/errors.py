"""What can go wrong between peers, disk and work; every error says whether to try again."""

from __future__ import annotations

from inference.reasons import Reason


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


class PermanentError(BridgeError):
    """Trying again will not help."""
