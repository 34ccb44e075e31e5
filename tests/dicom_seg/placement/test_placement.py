"""A Segmentation lies where its source is bright, whatever the geometry.

A segmenter that marks bright voxels makes the truth readable from the source itself: what a
reader of its own finds above the threshold in a slice must be, pixel for pixel, what the
Segmentation says of that slice, at the slice's own place in patient millimetres. The left,
right and middle landmarks differ in size, height and depth, so that no mirroring, swap of
rows and columns or change of order can go unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_seg.errors import VerificationError
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import Encoding, SegKind, write_segmentation
from dicom_seg.synthetic.acquisition import (
    PatientPosition,
    Plane,
    reversed_stack,
    shifted,
    stack,
    tilted,
    turned,
    unevenly_spaced,
    without_planes,
)
from dicom_seg.synthetic.options import (
    FileNames,
    NumberOrder,
    ObjectKind,
    PixelFormat,
    SeriesOptions,
)
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from dicom_seg.synthetic.series import write_ct_series
from dicom_seg.verification import verify_segmentation
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.volume import PADDING_HU, Volume

SHAPE = (14, 41, 47)  #: no multiple of eight: packed frames begin inside a byte
SPACING_MM = (3.0, 1.7, 1.5)
CENTRE_MM = np.array([12.0, -34.0, 560.0])
LEFT, RIGHT, MIDDLE = "kidney_left", "kidney_right", "aorta"
#: Balls beside the centre, mm LPS, and their radius: +x is the patient's left.
BALLS = {LEFT: ((14.0, -6.0, 9.0), 6.0), RIGHT: ((-13.0, 7.0, -8.0), 4.5)}
ROD_MM, ROD_RADIUS_MM = (1.0, 14.0), 3.2  #: along the body, at this x and y from the centre
U12 = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),))
U8 = PixelFormat(bits_stored=8, signed=False, rescale=((16.0, -1024.0),))


def in_structure(name: str, from_centre_mm: np.ndarray, margin_mm: float = 0.0) -> np.ndarray:
    """Which of the ``(..., 3)`` points lie in a landmark; the anatomy, free of any grid."""
    if name == MIDDLE:
        away_mm = np.linalg.norm(from_centre_mm[..., :2] - ROD_MM, axis=-1)
        return away_mm <= ROD_RADIUS_MM + margin_mm
    middle, radius = BALLS[name]
    return np.linalg.norm(from_centre_mm - middle, axis=-1) <= radius + margin_mm


def landmarks(geometry: Geometry) -> Volume:
    """A body of water with bright landmarks, sampled on any planes."""
    points = geometry.lps_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) - CENTRE_MM
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    hu[((points / (30, 24, 60)) ** 2).sum(axis=-1) <= 1] = 40
    for name, value in ((LEFT, 700), (RIGHT, 700), (MIDDLE, 1400)):
        hu[in_structure(name, points)] = value
    return Volume(hu, geometry)


@pytest.fixture
def segmenter(bright_segmenter):
    return bright_segmenter(side_x_mm=CENTRE_MM[0])


@pytest.fixture
def check_placement(segmenter):
    """As the segmenter checks; and every structure lies where the anatomy has it, in mm."""

    def check(frames, planes):
        assert segmenter.check(frames, planes) == {LEFT, RIGHT, MIDDLE}
        for frame in frames:
            for name, mask in frame.masks.items():
                points = frame.lps_mm(mask.shape)[mask] - CENTRE_MM
                assert in_structure(name, points, margin_mm=1e-3).all(), name

    return check


@dataclass(frozen=True)
class Case:
    """A processed row of the table of geometries."""

    name: str
    geometry: Geometry
    options: SeriesOptions = field(default_factory=SeriesOptions)
    findings: frozenset[Reason] = frozenset()

    def write(self, folder: Path) -> list[Path]:
        return write_ct_series(landmarks(self.geometry), folder, self.options)


def _upright(position=PatientPosition.HEAD_FIRST_SUPINE, plane=Plane.AXIAL, shape=SHAPE):
    return stack(shape, SPACING_MM, CENTRE_MM.tolist(), position, plane)


def _pixels(**values) -> SeriesOptions:
    return SeriesOptions(pixels=PixelFormat(**values))


def _syntax(syntax: PixelSyntax) -> Case:
    pixels = U8 if syntax is PixelSyntax.JPEG_BASELINE else U12
    return Case(
        f"syntax {syntax.name.lower().replace('_', ' ')}",
        _upright(),
        SeriesOptions(transfer_syntax_uid=syntax, pixels=pixels),
        frozenset() if syntax.lossy_method is None else frozenset({Reason.LOSSY_SOURCE}),
    )


HFS = _upright()
UNEVEN = [2.0, 4.0, 3.0, 2.5, 4.2, 1.5, 3.0, 2.0, 4.0, 3.5, 2.0, 3.0, 2.9]
BY_SLICE = tuple((1 + z / 8, -1024.0 - z) for z in range(14))
TILT = frozenset({Reason.GANTRY_TILT})
NON_UNIFORM = frozenset({Reason.NON_UNIFORM_SPACING})
CASES = [
    *(
        Case(f"position {p.value}", _upright(p), SeriesOptions(patient_position=p.value))
        for p in PatientPosition
    ),
    Case("coronal", _upright(plane=Plane.CORONAL)),
    Case("sagittal", _upright(plane=Plane.SAGITTAL)),
    Case("oblique", turned(HFS, (1.0, 2.0, 3.0), 25.0)),
    Case("oblique feet first prone", turned(_upright(PatientPosition("FFP")), (3, -1, 1), -35)),
    Case("descending", reversed_stack(HFS)),
    Case("wrong patient position", HFS, SeriesOptions(patient_position="FFP")),
    Case("no patient position", HFS, SeriesOptions(overrides={"PatientPosition": None})),
    Case("tilt", tilted(HFS, 16.5), findings=TILT),
    Case("tilt backwards", tilted(HFS, -20.0), findings=TILT),
    Case("tilt feet first", tilted(_upright(PatientPosition("FFS")), 12.0), findings=TILT),
    Case("uneven", unevenly_spaced(HFS, UNEVEN), findings=NON_UNIFORM),
    Case(
        "uneven and tilted",
        tilted(unevenly_spaced(HFS, UNEVEN), 9.0),
        findings=TILT | NON_UNIFORM,
    ),
    Case(
        "uneven with a gap",
        unevenly_spaced(HFS, [*UNEVEN[:6], 8.5, *UNEVEN[7:]]),
        findings=NON_UNIFORM | {Reason.MISSING_SLICE},
    ),
    Case(
        "planes aside of the others",
        shifted(tilted(HFS, 9.0), 9, rows=1.5, columns=2),
        findings=TILT | {Reason.SHIFTED_PLANES},
    ),
    Case(
        "gap of two slices",
        without_planes(_upright(shape=(16, 41, 47)), 6, 2),
        findings=frozenset({Reason.MISSING_SLICE}),
    ),
    *(
        Case(f"instance number {o.name.lower()}", HFS, SeriesOptions(numbers=o))
        for o in NumberOrder
    ),
    Case("file names shuffled", HFS, SeriesOptions(file_names=FileNames.SHUFFLED)),
    *(_syntax(syntax) for syntax in PixelSyntax),
    Case(
        "rescale by slice", HFS, _pixels(rescale=tuple((1 + z / 8, -1024 - z) for z in range(14)))
    ),
    Case("signed 12 bit", HFS, _pixels(bits_stored=12)),
    Case("unsigned 16 bit", HFS, _pixels(signed=False, rescale=((0.5, -2000.0),))),
    Case("enhanced", HFS, SeriesOptions(kind=ObjectKind.ENHANCED_CT)),
    Case(
        "enhanced frames in any order over several instances",
        turned(HFS, (0, 1, 0), 20.0),
        SeriesOptions(
            kind=ObjectKind.ENHANCED_CT, numbers=NumberOrder.RANDOM, frames_per_instance=5
        ),
    ),
    Case(
        "enhanced with one frame an instance",
        HFS,
        SeriesOptions(kind=ObjectKind.ENHANCED_CT, frames_per_instance=1),
    ),
    Case(
        "enhanced tilted compressed rescale by frame",
        tilted(HFS, 11.0),
        SeriesOptions(
            kind=ObjectKind.ENHANCED_CT,
            transfer_syntax_uid=PixelSyntax.JPEG_2000_LOSSLESS,
            pixels=PixelFormat(rescale=BY_SLICE),
        ),
        TILT,
    ),
    Case(
        "legacy converted feet first",
        _upright(PatientPosition("FFS")),
        SeriesOptions(
            kind=ObjectKind.LEGACY_CONVERTED_CT,
            numbers=NumberOrder.REVERSED,
            patient_position="FFS",
            transfer_syntax_uid=PixelSyntax.RLE,
        ),
    ),
]
KINDS = pytest.mark.parametrize("kind", SegKind)


@KINDS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_bright_pixel_is_in_the_frame_of_its_own_slice(
    case, kind, tmp_path, segmenter, segment_series, read_source, read_segmentation, check_placement
):
    paths = case.write(tmp_path / "ct")
    found = examine_series(paths)

    (path,) = segment_series(found, kind, tmp_path, segmenter)

    check_placement(read_segmentation(path), read_source(paths))
    assert {finding.reason for finding in found.stacks[0].findings} == case.findings
    assert found.left_out == ()


@KINDS
@pytest.mark.parametrize("padding", [(0, 0), (0, 20)], ids=["value", "range"])
def test_padding_is_never_foreground(
    kind,
    padding,
    tmp_path,
    segmenter,
    segment_series,
    read_source,
    read_segmentation,
    check_placement,
):
    volume = landmarks(HFS)
    volume.hu[:, :3] = PADDING_HU
    # Under a slope of -1 padding would be the brightest of all if it were taken for measured.
    pixels = PixelFormat(bits_stored=12, signed=False, rescale=((-1.0, 3000.0),), padding=padding)
    paths = write_ct_series(volume, tmp_path / "ct", SeriesOptions(pixels=pixels))

    (path,) = segment_series(examine_series(paths), kind, tmp_path, segmenter)

    check_placement(read_segmentation(path), read_source(paths))


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        (SegKind.BINARY, Encoding.NATIVE),
        (SegKind.BINARY, Encoding.DEFLATED),
        (SegKind.LABELMAP, Encoding.NATIVE),
        (SegKind.LABELMAP, Encoding.RLE),
    ],
)
def test_no_encoding_of_frames_moves_a_voxel(
    kind,
    encoding,
    tmp_path,
    segmenter,
    seg_request,
    read_source,
    read_segmentation,
    check_placement,
):
    paths = CASES[0].write(tmp_path / "ct")
    (plan,) = examine_series(paths).stacks
    labels = segmenter.segment(read_stack(plan).volume)
    path = tmp_path / "seg.dcm"
    write_segmentation(labels, plan, replace(seg_request(kind), encoding=encoding), path)

    check_placement(read_segmentation(path), read_source(paths))


@KINDS
def test_the_order_of_arrival_changes_no_byte_of_the_result(
    kind, tmp_path, rng, segmenter, segment_series
):
    paths = CASES[0].write(tmp_path / "ct")
    shuffled = [paths[i] for i in rng.permutation(len(paths))]

    (one,) = segment_series(examine_series(paths), kind, tmp_path / "one", segmenter)
    (two,) = segment_series(examine_series(shuffled), kind, tmp_path / "two", segmenter)

    assert one.read_bytes() == two.read_bytes()


def test_a_bright_voxel_keeps_its_place_in_mm_whatever_the_arrival_order(make_ct_series, rng):
    hu = np.full((10, 5, 6), -1000)
    hu[3, 1, 2] = 700
    series = make_ct_series(hu, spacing_mm=(2.0, 0.8, 0.7), centre_mm=(10.0, 20.0, 30.0))

    (plan,) = examine_series([series[i] for i in rng.permutation(10)]).stacks
    volume = read_stack(plan).volume

    (index,) = np.argwhere(volume.hu == 700)
    np.testing.assert_allclose(
        volume.geometry.lps_mm(index), [10 - 0.5 * 0.7, 20 - 1 * 0.8, 30 - 1.5 * 2.0]
    )


# The checks above must be able to fail: each fault is put in where such faults happen.
FAULTS = {
    "mirrored left to right": lambda labels: labels[:, :, ::-1],
    "mirrored front to back": lambda labels: labels[:, ::-1],
    "stacked the other way round": lambda labels: labels[::-1],
    "one slice late": lambda labels: np.roll(labels, 1, axis=0),
    "one column late": lambda labels: np.roll(labels, 1, axis=2),
    "sides swapped": lambda labels: np.array([0, 1, 3, 2, 4, 5, 6, 7])[labels],
}


@KINDS
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_misplaced_label_map_is_seen(
    kind, fault, tmp_path, segmenter, seg_request, read_source, read_segmentation, check_placement
):
    paths = CASES[0].write(tmp_path / "ct")
    (plan,) = examine_series(paths).stacks
    labels = segmenter.segment(read_stack(plan).volume)
    wrong = LabelMap(np.ascontiguousarray(fault(labels.labels)).astype(np.uint8), labels.geometry)
    path = tmp_path / "seg.dcm"
    write_segmentation(wrong, plan, seg_request(kind), path)

    with pytest.raises(AssertionError):
        check_placement(read_segmentation(path), read_source(paths))
    with pytest.raises(VerificationError):
        verify_segmentation(path, labels, plan, seg_request(kind))


@KINDS
def test_frames_that_refer_to_the_slice_of_another_are_seen(
    kind,
    tmp_path,
    segmenter,
    seg_request,
    segment_series,
    read_source,
    read_segmentation,
    check_placement,
):
    paths = CASES[0].write(tmp_path / "ct")
    (plan,) = examine_series(paths).stacks
    (path,) = segment_series(examine_series(paths), kind, tmp_path, segmenter)
    ds = pydicom.dcmread(path)
    first, last = (ds.PerFrameFunctionalGroupsSequence[i] for i in (0, -1))
    first.DerivationImageSequence, last.DerivationImageSequence = (
        last.DerivationImageSequence,
        first.DerivationImageSequence,
    )
    ds.save_as(path)

    with pytest.raises(AssertionError):
        check_placement(read_segmentation(path), read_source(paths))
    labels = segmenter.segment(read_stack(plan).volume)
    with pytest.raises(VerificationError):
        verify_segmentation(path, labels, plan, seg_request(kind))
