"""What can go wrong between DICOM and arrays; every error names the reason to stop with."""

from __future__ import annotations

from inference.reasons import Reason


class SegmentationError(Exception):
    """Base of all errors of this package: stop, for ``reason``.

    Parameters
    ----------
    reason
        The closed code that the command line, the ledger, the logs and the docs share.
    detail
        The attribute and the file or SOP Instance UID, and the value; free of patient data.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SeriesRefusedError(SegmentationError):
    """The series, or one instance of it, cannot be made into a volume."""


class VerificationError(SegmentationError):
    """A Segmentation read back is not what was meant; it must not leave the house."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.VERIFICATION_FAILED, detail)
