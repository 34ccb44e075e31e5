"""What a reader of the object is told in words: intended use, findings, what it replaces."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from dicom_seg.read.examination import StackPlan
from dicom_seg.seg.copied import fitted
from dicom_seg.seg.frames import FramePlan
from dicom_seg.seg.request import SegRequest
from dicom_seg.seg.segments import DEMONSTRATION_TEXT
from inference.structures import STRUCTURE_COUNT

INVESTIGATIONAL_SERIES: Final = "Anatomy (research use only, investigational)"
INVESTIGATIONAL_CONTENT: Final = "Research use only: investigational, not for clinical use"
DEMONSTRATION_SERIES: Final = "Anatomy (DEMONSTRATION, model trained on synthetic data)"

_LO_CHARACTERS: Final = 64
_ST_CHARACTERS: Final = 1024
_LT_CHARACTERS: Final = 10240
#: Of the names of wanted structures in Derivation Description, beside which the rest has room.
_NAMES_CHARACTERS: Final = 600


def add_remarks(dataset: Dataset, plan: StackPlan, frames: FramePlan, request: SegRequest) -> None:
    """Descriptions, derivation and comments.

    Series and content description say that the result is investigational unless the site has
    words of its own; that a model is for demonstration, no site can take away. Findings of
    the series stand in Image Comments (PS3.3 C.7.6.1), a line each, after the structures that
    were looked for where those are not all.
    """
    charset = dataset.get("SpecificCharacterSet")
    demonstration = request.algorithm.demonstration
    series = request.series_description
    if series is None:
        series = DEMONSTRATION_SERIES if demonstration else INVESTIGATIONAL_SERIES
    content = request.content_description
    if demonstration:
        content = DEMONSTRATION_TEXT
    elif content is None:
        content = INVESTIGATIONAL_CONTENT
    dataset.SeriesDescription = fitted(series, charset, _LO_CHARACTERS)
    dataset.ContentDescription = fitted(content, charset, _LO_CHARACTERS)
    dataset.DerivationDescription = fitted(_derivation(frames, request), charset, _ST_CHARACTERS)
    comments = "\r\n".join(_comments(plan, request))
    if comments:
        dataset.ImageComments = fitted(comments, charset, _LT_CHARACTERS)


def _derivation(frames: FramePlan, request: SegRequest) -> str:
    algorithm = request.algorithm
    revision = f"Revision {request.revision}"
    if request.predecessor is not None:
        revision += f", replaces {request.predecessor.sop_instance_uid}"
    by = f"Automatic segmentation by {algorithm.name} {algorithm.version}: "
    found = len(frames.structure_ids)
    if not algorithm.wanted:
        return f"{by}{found} of {STRUCTURE_COUNT} structures found. {revision}."
    names = f" ({', '.join(algorithm.wanted)})"
    if len(names) > _NAMES_CHARACTERS:  # Image Comments have room for all
        names = ""
    count = len(algorithm.wanted)
    wanted = "1 wanted structure" if count == 1 else f"the {count} wanted structures"
    return f"{by}{found} of {wanted}{names} found; no others were looked for. {revision}."


def _comments(plan: StackPlan, request: SegRequest) -> list[str]:
    findings = dict.fromkeys((*plan.findings, *request.findings))
    lines = [f"{finding.reason}: {finding.detail}" for finding in findings]
    if wanted := request.algorithm.wanted:
        lines.insert(0, f"only these structures were looked for: {', '.join(wanted)}")
    if plan.separated_by:
        lines.insert(0, f"stack: {plan.separated_by}")
    return lines
