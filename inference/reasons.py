"""Why a series, an instance or a model was not simply processed.

One closed set of codes serves the command line, the ledger, the logs, the report and the
documentation. What each means, which outcome it stands for and what to do about it are in
``data/reasons.csv``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files


class Reason(StrEnum):
    """The reason codes; ``describe`` tells what one means."""

    GANTRY_TILT = "gantry-tilt"
    NON_UNIFORM_SPACING = "non-uniform-spacing"
    SHIFTED_PLANES = "shifted-planes"
    MISSING_SLICE = "missing-slice"
    DUPLICATE_SLICE = "duplicate-slice"
    SPLIT_STACK = "split-stack"
    MIXED_ORIENTATION = "mixed-orientation"
    LOSSY_SOURCE = "lossy-source"
    HU_ROUNDED = "hu-rounded"
    HU_CLIPPED = "hu-clipped"
    IMPLAUSIBLE_HU = "implausible-hu"
    IDENTITY_DIFFERS = "identity-differs"
    INVALID_VALUE = "invalid-value"
    TRUNCATED_STRUCTURE = "truncated-structure"
    LATERALITY_ORDER = "laterality-order"
    MODEL_FOR_DEMONSTRATION = "model-for-demonstration"
    CHOSEN_STRUCTURES = "chosen-structures"
    FRAME_OF_REFERENCE_DERIVED = "frame-of-reference-derived"
    DUPLICATE_INSTANCE = "duplicate-instance"
    LOCALIZER = "localizer"
    NOT_CT = "not-ct"
    DERIVED = "derived"
    TOO_FEW_SLICES = "too-few-slices"
    NOT_SELECTED = "not-selected"
    OWN_RESULT = "own-result"
    OTHER_STACK = "other-stack"
    INCOMPLETE = "incomplete"
    DUPLICATE_POSITION = "duplicate-position"
    MIXED_FRAME_OF_REFERENCE = "mixed-frame-of-reference"
    MIXED_MATRIX = "mixed-matrix"
    MIXED_SERIES = "mixed-series"
    MISSING_GEOMETRY = "missing-geometry"
    NO_RESCALE = "no-rescale"
    CORRUPT_PIXEL_DATA = "corrupt-pixel-data"
    UNSUPPORTED_SYNTAX = "unsupported-syntax"
    TOO_LARGE = "too-large"
    NO_DICOM = "no-dicom"
    UNREADABLE_FILE = "unreadable-file"
    ORIENTATION_CONFLICT = "orientation-conflict"
    NO_ORIENTATION = "no-orientation"
    MISSING_IDENTITY = "missing-identity"
    MIXED_IDENTITY = "mixed-identity"
    CONFLICTING_INSTANCE = "conflicting-instance"
    UNKNOWN_MODEL = "unknown-model"
    MODEL_CHECKSUM = "model-checksum"
    MODEL_CLASS_COUNT = "model-class-count"
    MODEL_NOT_STATE_DICT = "model-not-state-dict"
    MODEL_MANIFEST = "model-manifest"
    FETCH_FAILED = "fetch-failed"
    MODEL_ERROR = "model-error"
    OOM_CPU = "oom-cpu"
    OOM_GPU = "oom-gpu"
    EMPTY_RESULT = "empty-result"
    SEG_ENCODE = "seg-encode"
    VERIFICATION_FAILED = "verification-failed"
    SEND_REFUSED = "send-refused"
    SEND_TIMEOUT = "send-timeout"
    UNKNOWN_DESTINATION = "unknown-destination"
    TIMEOUT = "timeout"
    DISK_FULL = "disk-full"
    LEDGER_UNAVAILABLE = "ledger-unavailable"
    LEDGER_ELSEWHERE = "ledger-elsewhere"
    DATA_FOLDER_DENIED = "data-folder-denied"
    QUEUE_UNAVAILABLE = "queue-unavailable"
    WRONG_QUEUE = "wrong-queue"
    WRONG_RECIPE = "wrong-recipe"
    BAD_PAYLOAD = "bad-payload"
    CANNOT_LISTEN = "cannot-listen"
    SOURCE_MISSING = "source-missing"
    SOURCE_UNREACHABLE = "source-unreachable"
    SOURCE_REFUSED = "source-refused"
    SOURCE_INCOMPLETE = "source-incomplete"
    NOT_AUTHORISED = "not-authorised"
    BAD_ANSWER = "bad-answer"
    UNKNOWN_SOURCE = "unknown-source"
    NO_CASES = "no-cases"
    MISSING_IMAGE = "missing-image"
    MISSING_LABELS = "missing-labels"
    DUPLICATE_CASE = "duplicate-case"
    MISSING_CASE = "missing-case"
    NO_SPLIT = "no-split"
    MISSING_MASK = "missing-mask"
    EXTRA_MASK = "extra-mask"
    MISNAMED_MASK = "misnamed-mask"
    V2_NAMES = "v2-names"
    V2_REMAPPED = "v2-remapped"
    OTHER_GRID = "other-grid"
    OVERLAPPING_MASKS = "overlapping-masks"
    FLOAT_MASK = "float-mask"
    MASK_NOT_BINARY = "mask-not-binary"
    EMPTY_FILE = "empty-file"
    NO_STRUCTURE = "no-structure"
    TRAINING_PRESET = "training-preset"
    TRAINING_DIVERGED = "training-diverged"
    CHECKPOINT = "checkpoint"
    UNKNOWN_LABEL = "unknown-label"
    DUPLICATE_SEGMENT = "duplicate-segment"
    LABEL_DIFFERS = "label-differs"
    RESAMPLED = "resampled"
    UNPAIRED = "unpaired"
    INTERNAL_ERROR = "internal-error"


@dataclass(frozen=True, slots=True)
class ReasonText:
    """What a reason code means, for people."""

    outcome: str  #: finding, ignored, skipped, held, refused, quarantined or failed
    meaning: str
    advice: str  #: what the operator can do


@cache
def _texts() -> dict[Reason, ReasonText]:
    table = (files("inference") / "data" / "reasons.csv").read_text(encoding="utf-8")
    return {
        Reason(row["code"]): ReasonText(row["outcome"], row["meaning"], row["advice"])
        for row in csv.DictReader(table.splitlines())
    }


def describe(reason: Reason) -> ReasonText:
    """Meaning, outcome and advice of a reason code."""
    return _texts()[reason]


def reason_table() -> str:
    """All reason codes as a Markdown page; ``docs/reason_codes.md`` is this text."""
    lines = [
        "# Reason codes",
        "Made by `make docs` from `inference/data/reasons.csv`. The command line, the ledger, the "
        "logs, the report and this page share them.",
        "",
        "| code | outcome | meaning | what to do |",
        "| --- | --- | --- | --- |",
    ]
    for reason in Reason:
        text = describe(reason)
        lines.append(f"| `{reason}` | {text.outcome} | {text.meaning} | {text.advice} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reason_table(), end="")
