"""Placement in files that are legal, or nearly so, and seldom: each was met in an archive."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind
from dicom_seg.synthetic.acquisition import stack, tilted
from dicom_seg.synthetic.options import ObjectKind, PixelFormat, SeriesOptions
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason

GEOMETRY = tilted(stack((12, 25, 31), (3.0, 1.7, 1.5), (12.0, -34.0, 560.0)), 8.0)
U12 = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),))
MULTIFRAME = [ObjectKind.ENHANCED_CT, ObjectKind.LEGACY_CONVERTED_CT]
KINDS = pytest.mark.parametrize("kind", SegKind)


@pytest.fixture
def check(blobs, tmp_path, bright_segmenter, segment_series, read_source, read_segmentation):
    """``check(kind, options, change)`` writes, changes each file, and proves the placement."""
    segmenter = bright_segmenter(side_x_mm=12.7)

    def proved(kind, options, change):
        paths = write_ct_series(blobs(GEOMETRY), tmp_path / "ct", options)
        planes = read_source(paths)
        for path in paths:
            ds = pydicom.dcmread(path)
            change(ds)
            ds.save_as(path)
        found = examine_series(paths)
        (result,) = segment_series(found, kind, tmp_path, segmenter)
        segmenter.check(read_segmentation(result), planes)
        return found.stacks[0], pydicom.dcmread(result)

    return proved


@KINDS
def test_an_overlay_in_the_unused_bits_is_no_part_of_the_value(kind, check):
    def add_overlay(ds):
        bits = np.arange(ds.Rows * ds.Columns, dtype=np.uint16) % 3 << 12
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) | bits).tobytes()

    check(kind, SeriesOptions(pixels=U12), add_overlay)


@KINDS
def test_values_in_the_upper_bits_of_a_word_are_read(kind, check):
    def shift(ds):
        ds.HighBit = 15
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) << 4).tobytes()

    check(kind, SeriesOptions(pixels=U12), shift)


@KINDS
@pytest.mark.parametrize("objects", [ObjectKind.CT, ObjectKind.ENHANCED_CT])
@pytest.mark.parametrize("syntax", [PixelSyntax.JPEG_LS, PixelSyntax.JPEG_2000_LOSSLESS])
def test_frames_in_several_fragments_are_put_together(kind, objects, syntax, check):
    def split(ds):
        frames = list(generate_frames(ds.PixelData, number_of_frames=ds.get("NumberOfFrames", 1)))
        ds.PixelData = encapsulate(frames, fragments_per_frame=2)

    check(kind, SeriesOptions(kind=objects, transfer_syntax_uid=syntax), split)


@KINDS
def test_frames_without_an_offset_table_are_told_apart(kind, check):
    def drop_table(ds):
        frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
        ds.PixelData = encapsulate(frames, has_bot=False)

    options = SeriesOptions(
        kind=ObjectKind.ENHANCED_CT, transfer_syntax_uid=PixelSyntax.JPEG_LOSSLESS_SV1
    )
    check(kind, options, drop_table)


@KINDS
def test_directions_that_waver_in_the_last_digits_are_one_orientation(kind, check, rng):
    def waver(ds):
        cosines = np.array(ds.ImageOrientationPatient, float) + rng.uniform(-2e-7, 2e-7, 6)
        ds.ImageOrientationPatient = [f"{value:.9f}" for value in cosines]

    check(kind, SeriesOptions(), waver)


@KINDS
@pytest.mark.parametrize("objects", MULTIFRAME)
def test_groups_that_are_usually_shared_may_stand_in_each_frame(kind, objects, check):
    def to_frames(ds):
        shared = ds.SharedFunctionalGroupsSequence[0]
        for keyword in (
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):
            for groups in ds.PerFrameFunctionalGroupsSequence:
                setattr(groups, keyword, copy.deepcopy(shared[keyword].value))
            delattr(shared, keyword)

    check(kind, SeriesOptions(kind=objects), to_frames)


@KINDS
def test_a_source_without_frame_of_reference_gets_one_of_its_own(kind, check):
    plan, result = check(kind, SeriesOptions(), lambda ds: delattr(ds, "FrameOfReferenceUID"))

    assert Reason.FRAME_OF_REFERENCE_DERIVED in {finding.reason for finding in plan.findings}
    assert result.FrameOfReferenceUID == plan.table.frame_of_reference_uid


@KINDS
@pytest.mark.parametrize("objects", MULTIFRAME)
def test_two_phases_in_one_multi_frame_instance_give_two_results(
    kind, objects, tmp_path, rng, blobs, bright_segmenter, segment_series, read_source,
    read_segmentation,
):  # fmt: skip
    segmenter = bright_segmenter(side_x_mm=12.7)
    phases = [
        pydicom.dcmread(
            write_ct_series(
                blobs(GEOMETRY, seed=phase),
                tmp_path / f"phase{phase}",
                SeriesOptions(kind=objects, stack=phase),
            )[0]
        )
        for phase in (1, 2)
    ]
    both = phases[0]
    frames = [
        (phase, groups, pixels)
        for phase, ds in enumerate(phases, start=1)
        for groups, pixels in zip(ds.PerFrameFunctionalGroupsSequence, ds.pixel_array, strict=True)
    ]
    frames = [frames[i] for i in rng.permutation(len(frames))]
    for phase, groups, _ in frames:
        groups.FrameContentSequence[0].StackID = "1"
        groups.FrameContentSequence[0].TemporalPositionIndex = phase
    both.PerFrameFunctionalGroupsSequence = Sequence([groups for _, groups, _ in frames])
    both.PixelData = b"".join(pixels.tobytes() for *_, pixels in frames)
    both.NumberOfFrames = len(frames)
    path = tmp_path / "both.dcm"
    both.save_as(path)

    found = examine_series([path])
    results = segment_series(found, kind, tmp_path, segmenter)

    assert [plan.separated_by for plan in found.stacks] == [
        "TemporalPositionIndex=1",
        "TemporalPositionIndex=2",
    ]
    planes = read_source([path])
    for phase, result in enumerate(results, start=1):
        own = [plane for plane, (of, *_) in zip(planes, frames, strict=True) if of == phase]
        segmenter.check(read_segmentation(result), own)
