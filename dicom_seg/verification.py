"""Reads a Segmentation back and compares it with what was meant, before it may leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_seg.segmentation import SegRequest
from inference.label_map import LabelMap

if TYPE_CHECKING:
    from dicom_seg.series import StackPlan


def verify_segmentation(path: Path, labels: LabelMap, plan: StackPlan, request: SegRequest) -> None:
    """Check the object at ``path`` against labels, source and request.

    Raises
    ------
    VerificationError
        Naming what differs.
    """
    raise NotImplementedError
