"""From the header of one instance to its planes, one or as many as it has frames.

A single-frame CT holds the attributes of its plane itself (PS3.3 A.3). An Enhanced CT, and a
Legacy Converted one, hold them in functional groups, shared or per frame (PS3.3 A.38, A.70,
C.7.6.16); from here on a frame is a plane like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.attributes import Attributes
from dicom_seg.read.examination import LeftOut, SeriesRules
from dicom_seg.read.header import FileHeader
from dicom_seg.read.kind import (
    MULTI_FRAME_CT_SOP_CLASSES,
    is_derived,
    is_hounsfield,
    wrong_image,
)
from dicom_seg.read.pixel_source import matrix_of, pixel_source
from dicom_seg.read.slice_table import PixelSource, SliceRow
from dicom_seg.read.transfer_syntax import is_lossy
from inference.reasons import Reason

#: Attributes that may tell two planes at one position apart, most telling first.
SEPARATORS: Final = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "ContrastBolusAgentPhase",
    "KVP",
    "StackID",
    "ImageType",
    "ReconstructionAlgorithm",
    "SliceThickness",
    "AcquisitionDateTime",
    "AcquisitionTime",
)
#: Direction cosines may miss unit length and right angles by so much.
_COSINE_TOLERANCE: Final = 1e-3
#: Nothing that is scanned is farther from the origin, or has finer or coarser pixels.
_FARTHEST_MM: Final = 1e6
_SPACING_MM: Final = (1e-3, 1e3)


@dataclass(frozen=True, slots=True)
class Plane:
    """A row of the slice table to be, and what else decides on its place in a stack."""

    row: SliceRow
    frame_of_reference_uid: str  #: empty if there is none
    traits: tuple[str, ...]  #: values of `SEPARATORS`, empty where there is none
    lossy: bool


def planes_of(
    header: FileHeader, rules: SeriesRules
) -> tuple[tuple[Plane, ...], tuple[LeftOut, ...]]:
    """Planes of one instance of a CT class, and the frames of it that are none.

    Raises
    ------
    SeriesRefusedError
        Naming attribute and instance, if a plane lacks its geometry, its rescale or its
        pixels.
    """
    image = Attributes(header.dataset)
    frames = _frames(header, image)
    instance = f"instance {image.uid('SOPInstanceUID')}"
    planes: list[Plane] = []
    left_out: list[LeftOut] = []
    source: PixelSource | None = None
    for frame in frames:
        reason = frame.wrong(image)
        if reason is not None:
            left_out.append(
                LeftOut(header.path, image.uid("SOPInstanceUID"), frame.number, *reason)
            )
            continue
        if source is None:
            source = pixel_source(header, image, len(frames), rules, instance)
        planes.append(frame.plane(header, image, source, rules))
    return tuple(planes), tuple(left_out)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Where the attributes of one plane are found."""

    number: int | None
    frame_type: tuple[str, ...]
    position: Attributes
    orientation: Attributes
    measures: Attributes
    values: Attributes  #: rescale
    padding: Attributes
    separators: Attributes

    def wrong(self, image: Attributes) -> tuple[Reason, str] | None:
        """Why this frame is no CT slice; None if it is one."""
        reason = wrong_image(image, self.frame_type)
        if reason is not None:
            return reason
        if is_derived(self.frame_type):
            if not is_hounsfield(self.values.text("RescaleType")):
                shown = self.values.text("RescaleType")[:16]
                return Reason.DERIVED, f"derived, with Rescale Type {shown!r}"
            if self.position.numbers("ImagePositionPatient", 3) is None:
                return Reason.DERIVED, "derived, without Image Position (Patient)"
        return None

    def plane(
        self, header: FileHeader, image: Attributes, source: PixelSource, rules: SeriesRules
    ) -> Plane:
        """The plane of this frame."""
        uid = image.uid("SOPInstanceUID")
        name = f"instance {uid}" + (f" frame {self.number}" if self.number else "")
        rows, columns = matrix_of(image, rules, name)
        cosines = self._vector(self.orientation, "ImageOrientationPatient", 6, name)
        _check_cosines(cosines, name)
        origin = self._vector(self.position, "ImagePositionPatient", 3, name)
        if max(map(abs, origin)) > _FARTHEST_MM:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY, f"ImagePositionPatient {origin} is impossible in {name}"
            )
        spacing = self._vector(self.measures, "PixelSpacing", 2, name)
        if not _SPACING_MM[0] <= min(spacing) <= max(spacing) <= _SPACING_MM[1]:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY, f"PixelSpacing {spacing} is impossible in {name}"
            )
        slope, intercept = self._rescale(name)
        row = SliceRow(
            path=header.path,
            sop_class_uid=image.uid("SOPClassUID"),
            sop_instance_uid=uid,
            frame_number=self.number,
            transfer_syntax_uid=header.transfer_syntax_uid,
            origin_mm=(origin[0], origin[1], origin[2]),
            row_cosine=(cosines[0], cosines[1], cosines[2]),
            column_cosine=(cosines[3], cosines[4], cosines[5]),
            row_spacing_mm=spacing[0],
            column_spacing_mm=spacing[1],
            rows=rows,
            columns=columns,
            rescale_slope=slope,
            rescale_intercept=intercept,
            padding=_padding(self.padding, source),
            pixels=source,
            stamp=header.stamp,
        )
        lossy = is_lossy(header.transfer_syntax_uid, image.text("LossyImageCompression"))
        traits = tuple(self._trait(keyword) for keyword in SEPARATORS)
        return Plane(row, image.uid("FrameOfReferenceUID"), traits, lossy)

    def _vector(
        self, attributes: Attributes, keyword: str, count: int, name: str
    ) -> tuple[float, ...]:
        numbers = attributes.numbers(keyword, count)
        if numbers is None:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY, f"{keyword} is missing or impossible in {name}"
            )
        return numbers

    def _rescale(self, name: str) -> tuple[float, float]:
        slope, intercept = (
            self.values.number(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")
        )
        if slope is None or intercept is None or slope == 0:
            keyword = "RescaleIntercept" if slope else "RescaleSlope"
            raise SeriesRefusedError(
                Reason.NO_RESCALE, f"{keyword} is missing or impossible in {name}"
            )
        if not is_hounsfield(self.values.text("RescaleType")):
            shown = self.values.text("RescaleType")[:16]
            raise SeriesRefusedError(Reason.NO_RESCALE, f"RescaleType is {shown!r} in {name}")
        return slope, intercept

    def _trait(self, keyword: str) -> str:
        if keyword == "ImageType":
            return "\\".join(self.frame_type)
        if keyword == "AcquisitionNumber":
            number = self.separators.text("FrameAcquisitionNumber")
            return number or self.separators.text(keyword)
        return self.separators.text(keyword)


def _frames(header: FileHeader, image: Attributes) -> list[_Frame]:
    """Where each frame keeps its attributes."""
    stated = image.integer("NumberOfFrames")
    name = f"instance {image.uid('SOPInstanceUID')}"
    if image.uid("SOPClassUID") not in MULTI_FRAME_CT_SOP_CLASSES:
        if stated not in (None, 1):
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY, f"{stated} frames in a single-frame SOP class in {name}"
            )
        alone = _Frame(None, image.texts("ImageType"), *[image] * 6)
        return [alone]
    per_frame = image.items("PerFrameFunctionalGroupsSequence")
    if not per_frame or stated != len(per_frame):
        raise SeriesRefusedError(
            Reason.MISSING_GEOMETRY,
            f"PerFrameFunctionalGroupsSequence describes {len(per_frame)} of {stated} frames"
            f" in {name}",
        )
    shared = image.items("SharedFunctionalGroupsSequence")[:1]
    return [
        _multi_frame(header.dataset, (item, *shared), number)
        for number, item in enumerate(per_frame, start=1)
    ]


def _multi_frame(image: Dataset, groups: tuple[Dataset, ...], number: int) -> _Frame:
    """A frame of a multi-frame instance; ``groups`` are its own and the shared ones."""

    def macro(*keywords: str) -> Attributes:
        # A macro stands in the frame or in the shared groups, never in both (PS3.3 C.7.6.16.1).
        attributes = Attributes(*groups)
        found = (item for keyword in keywords for item in attributes.items(keyword)[:1])
        return Attributes(*found)

    unassigned = (
        "UnassignedPerFrameConvertedAttributesSequence",
        "UnassignedSharedConvertedAttributesSequence",
    )
    return _Frame(
        number=number,
        frame_type=macro("CTImageFrameTypeSequence").texts("FrameType")
        or Attributes(image).texts("ImageType"),
        position=macro("PlanePositionSequence"),
        orientation=macro("PlaneOrientationSequence"),
        measures=macro("PixelMeasuresSequence"),
        values=macro("PixelValueTransformationSequence"),
        padding=Attributes(image, *macro(*unassigned).datasets),
        separators=macro(
            "FrameContentSequence",
            "TemporalPositionSequence",
            "CardiacSynchronizationSequence",
            "CTReconstructionSequence",
            "CTXRayDetailsSequence",
            "ContrastBolusUsageSequence",
            "PixelMeasuresSequence",
            *unassigned,
        ),
    )


def _check_cosines(cosines: tuple[float, ...], name: str) -> None:
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = [float(np.linalg.norm(vector)) for vector in (row, column)]
    errors = [abs(length - 1.0) for length in lengths] + [abs(float(row @ column))]
    if max(errors) > _COSINE_TOLERANCE:
        raise SeriesRefusedError(
            Reason.MISSING_GEOMETRY,
            f"ImageOrientationPatient {list(cosines)} has no unit cosines at right angles"
            f" in {name}",
        )


def _padding(image: Attributes, source: PixelSource) -> tuple[int, int] | None:
    """Stored values that are padding (PS3.3 C.7.5.1.1.2).

    Its VR is US or SS by Pixel Representation, but writers take the other one: -2000 comes
    as 63536. The bits are the same, so the value is read as a word of Bits Allocated.
    """
    ends = [image.number("PixelPaddingValue"), image.number("PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    span = 1 << source.bits_allocated
    words = []
    for end in ends:
        if end is None:
            continue
        word = math.floor(end) % span
        words.append(word - span if source.signed and word >= span // 2 else word)
    return min(words), max(words)
