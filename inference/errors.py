"""What can go wrong between arrays; every error names the reason to stop with."""

from __future__ import annotations

from inference.reasons import Reason


class InferenceError(Exception):
    """Base of all errors of this package: stop, for ``reason``.

    Parameters
    ----------
    reason
        The closed code that the command line, the ledger, the logs and the docs share.
    detail
        What was found, with the file or value; free of patient data.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidGeometryError(InferenceError):
    """Planes that cannot be a stack of images."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.MISSING_GEOMETRY, detail)


class ModelError(InferenceError):
    """A model that cannot be used, stored or run; the detail names it."""
