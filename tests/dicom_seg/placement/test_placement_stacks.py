"""Several stacks, twins and strays in one series: each result lies on its own slices."""

from __future__ import annotations

import pydicom
import pytest

from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind
from dicom_seg.synthetic.acquisition import Plane, stack
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason

AXIAL = stack((12, 25, 31), (3.0, 1.7, 1.5))
KINDS = pytest.mark.parametrize("kind", SegKind)
SEPARATORS = {
    "AcquisitionNumber": (1, 2),
    "TemporalPositionIdentifier": (1, 2),
    "NominalPercentageOfCardiacPhase": (40.0, 75.0),
    "ConvolutionKernel": ("B30", "B70"),
}


@pytest.fixture
def segmenter(bright_segmenter):
    return bright_segmenter(side_x_mm=0.7)


def uids(paths):
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


@KINDS
@pytest.mark.parametrize(
    ("keyword", "values"),
    SEPARATORS.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_stack_that_an_attribute_separates_has_a_result_on_its_own_slices(
    kind, keyword, values, tmp_path, rng, blobs, segmenter, segment_series, read_source,
    read_segmentation,
):  # fmt: skip
    parts = [
        write_ct_series(
            blobs(AXIAL, seed=number),
            tmp_path / "ct",
            SeriesOptions(stack=number, overrides={keyword: value}),
        )
        for number, value in enumerate(values, start=1)
    ]
    mixed = [paths[i] for i in rng.permutation(12) for paths in parts]

    found = examine_series(mixed)
    results = segment_series(found, kind, tmp_path, segmenter)

    assert len(results) == 2
    assert all(keyword in plan.separated_by for plan in found.stacks)
    assert all(Reason.SPLIT_STACK in {f.reason for f in plan.findings} for plan in found.stacks)
    part_of = {frozenset(uids(paths)): paths for paths in parts}
    for plan, path in zip(found.stacks, results, strict=True):
        own = part_of.pop(frozenset(row.sop_instance_uid for row in plan.table.rows))
        segmenter.check(read_segmentation(path), read_source(own))
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in results}) == 2


@KINDS
def test_two_acquisitions_of_other_heights_are_placed_where_each_is(
    kind, tmp_path, blobs, segmenter, segment_series, read_source, read_segmentation
):
    heights = {1: (0.0, 0.0, 0.0), 2: (0.0, 0.0, 7.0)}
    parts = [
        write_ct_series(
            blobs(stack((12, 25, 31), (3.0, 1.7, 1.5), centre), seed=number),
            tmp_path / "ct",
            SeriesOptions(stack=number, acquisition_number=number),
        )
        for number, centre in heights.items()
    ]

    found = examine_series([path for paths in parts for path in paths])

    frames = [
        frame
        for path in segment_series(found, kind, tmp_path, segmenter)
        for frame in read_segmentation(path)
    ]
    segmenter.check(frames, read_source([path for paths in parts for path in paths]))


@KINDS
def test_twins_of_a_slice_are_used_once(
    kind, tmp_path, blobs, segmenter, segment_series, read_source, read_segmentation
):
    volume = blobs(AXIAL)
    paths = write_ct_series(volume, tmp_path / "ct", SeriesOptions(stack=1))
    twins = write_ct_series(volume, tmp_path / "ct", SeriesOptions(stack=2))
    files = [*paths, *twins[3:5]]

    found = examine_series(files)
    (result,) = segment_series(found, kind, tmp_path, segmenter)

    left_out = {out.sop_instance_uid for out in found.left_out}
    assert len(left_out) == 2
    planes = [plane for plane in read_source(files) if plane.key[0] not in left_out]
    assert len({tuple(plane.position_mm) for plane in planes}) == 12
    segmenter.check(read_segmentation(result), planes)


@KINDS
@pytest.mark.parametrize("multiframe", [ObjectKind.CT, ObjectKind.ENHANCED_CT])
def test_strays_of_another_orientation_do_not_move_the_rest(
    kind, multiframe, tmp_path, blobs, segmenter, segment_series, read_source, read_segmentation
):
    options = SeriesOptions(stack=1, kind=multiframe)
    paths = write_ct_series(blobs(AXIAL), tmp_path / "ct", options)
    coronal = stack((2, 25, 31), (3.0, 1.7, 1.5), plane=Plane.CORONAL)
    strays = write_ct_series(
        blobs(coronal, seed=5), tmp_path / "ct", SeriesOptions(stack=2, kind=multiframe)
    )

    found = examine_series([*strays, *paths])
    (result,) = segment_series(found, kind, tmp_path, segmenter)

    assert {out.path for out in found.left_out} == set(strays)
    segmenter.check(read_segmentation(result), read_source(paths))


@KINDS
def test_a_lone_slice_can_be_placed(
    kind, tmp_path, blobs, segmenter, segment_series, read_source, read_segmentation
):
    paths = write_ct_series(blobs(stack((1, 25, 31), (3.0, 1.7, 1.5))), tmp_path / "ct")

    found = examine_series(paths, SeriesRules(min_slices=1))
    (result,) = segment_series(found, kind, tmp_path, segmenter)

    segmenter.check(read_segmentation(result), read_source(paths))
