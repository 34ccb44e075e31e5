"""What a synthetic CT series looks like on disk, apart from its voxels and their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType

from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)


def _nothing() -> Mapping[str, object]:
    return MappingProxyType({})


def _no_planes() -> Mapping[int, Mapping[str, object]]:
    return MappingProxyType({})


class ObjectKind(StrEnum):
    """The SOP classes that a CT series comes in, by UID."""

    CT = CTImageStorage
    ENHANCED_CT = EnhancedCTImageStorage
    LEGACY_CONVERTED_CT = LegacyConvertedEnhancedCTImageStorage


class NumberOrder(Enum):
    """How Instance Number runs along the stack; in multi-frame objects, how frames run."""

    ASCENDING = auto()
    REVERSED = auto()
    RANDOM = auto()
    DUPLICATE = auto()  #: the same number in every instance
    MISSING = auto()  #: Instance Number is present and empty


class FileNames(Enum):
    """How files are called."""

    NUMBERED = auto()  #: in stack order, with .dcm
    SHUFFLED = auto()  #: numbered in an order of their own, without a suffix
    SOP_INSTANCE_UID = auto()


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How Hounsfield units become stored values.

    Values beyond what the format holds are clipped to it, as a scanner does.

    Raises
    ------
    ValueError
        If the format cannot be stored, or no rescale is given.
    """

    bits_stored: int = 16  #: 8 (with 8 allocated) or 12 to 16 (with 16 allocated)
    signed: bool = True  #: Pixel Representation
    #: ``(slope, intercept)``: one for all planes, or one a plane in stack order
    rescale: tuple[tuple[float, float], ...] = ((1.0, 0.0),)
    #: stored values low..high that stand for padding; Pixel Padding Value and Range Limit
    padding: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.bits_stored != 8 and not 12 <= self.bits_stored <= 16:
            raise ValueError(f"bits_stored must be 8 or 12 to 16, not {self.bits_stored}")
        if not self.rescale or any(slope == 0 for slope, _ in self.rescale):
            raise ValueError(f"rescale needs slopes other than 0: {self.rescale}")
        if self.padding is not None and not (
            self.stored_range[0] <= self.padding[0] <= self.padding[1] <= self.stored_range[1]
        ):
            raise ValueError(f"padding {self.padding} is not within {self.stored_range}")

    @property
    def bits_allocated(self) -> int:
        """8 or 16."""
        return 8 if self.bits_stored == 8 else 16

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1

    def rescale_of(self, plane: int) -> tuple[float, float]:
        """Slope and intercept of a plane."""
        return self.rescale[plane if len(self.rescale) > 1 else 0]


@dataclass(frozen=True, slots=True)
class Subject:
    """Who the series is of; nobody, and it says so."""

    patient_name: str = "Synthetic^Patient"
    patient_id: str = "SYNTHETIC-0001"
    birth_date: str = "19700101"
    sex: str = "O"
    age: str = "050Y"
    accession_number: str = "SYN0001"


@dataclass(frozen=True, slots=True)
class SeriesOptions:
    """How ``write_ct_series`` writes a volume. The same options give the same bytes.

    ``seed`` and ``series`` name patient study and series: series of one seed share study and
    frame of reference. ``stack`` tells apart several stacks written into one series: their
    instances differ in UID and in file name.

    ``overrides`` and ``plane_overrides`` set attributes by keyword after all else, for a
    whole series and by index of the plane; the value ``None`` removes the attribute. In
    multi-frame objects they reach into the functional groups that hold the keyword.
    """

    kind: ObjectKind = ObjectKind.CT
    transfer_syntax_uid: str = ExplicitVRLittleEndian
    pixels: PixelFormat = field(default_factory=PixelFormat)
    patient_position: str = "HFS"
    subject: Subject = field(default_factory=Subject)
    seed: int = 0
    series: int = 1  #: Series Number
    stack: int = 1
    acquisition_number: int | None = 1
    numbers: NumberOrder = NumberOrder.ASCENDING
    file_names: FileNames = FileNames.NUMBERED
    frames_per_instance: int | None = None  #: multi-frame objects only; None: all in one
    #: JPEG: quality 1..100; JPEG-LS: largest error in stored values; JPEG 2000: dB; HTJ2K: step
    loss_level: float | None = None
    overrides: Mapping[str, object] = field(default_factory=_nothing)
    plane_overrides: Mapping[int, Mapping[str, object]] = field(default_factory=_no_planes)
