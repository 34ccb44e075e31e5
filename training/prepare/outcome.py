"""What became of a raw case, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inference.reasons import Reason


@dataclass(frozen=True, slots=True)
class Rules:
    """What the person who prepares a dataset decides."""

    remap_v2: bool = False  #: take masks with names of TotalSegmentator v2 for those of v1
    copy_images: bool = False  #: where a hard link would do


class Split(StrEnum):
    """Which set a case belongs to."""

    TRAINING = "training"
    TEST = "test"

    @property
    def suffix(self) -> str:
        """Of the folders of images and labels."""
        return "Tr" if self is Split.TRAINING else "Ts"


class ImageKept(StrEnum):
    """How the scan came into the dataset, byte for byte in any case."""

    HARD_LINK = "hard link"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a case that its report tells."""

    reason: Reason
    refuses: bool  #: the case is left out for it
    file: str  #: that it is about, relative to the case; empty: the case as a whole
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a raw case."""

    case: str
    split: Split | None  #: None where it is not known
    remarks: tuple[Remark, ...]
    image: ImageKept | None = None  #: None: left out

    @property
    def prepared(self) -> bool:
        """Whether the case is part of the dataset."""
        return self.image is not None
