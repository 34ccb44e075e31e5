"""Placement on real series: tilted, feet first, JPEG 2000, multi-frame."""

from __future__ import annotations

import pytest

from dicom_seg.read.examination import Outcome, SeriesRules
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind
from inference.reasons import Reason

pytestmark = pytest.mark.shared
#: Folder, brightness thresholds (the multi-frame holds 0 and 1), findings that must be among
#: those made.
SERIES = {
    "dcm_qa_ct_Philips_tilt16_5": ((300, 700), {Reason.GANTRY_TILT}),
    "dcm_qa_ct_Philips_notilt": ((300, 700), set()),
    "dcmqi/ct-3slice": ((300, 1000), set()),
    "ts_dicom": ((300, 1000), set()),
    "dcmqi/24x38x3/multiframe": ((0, 2), set()),
    "dcmqi/24x38x3/image": ((0, 2), set()),
}


@pytest.mark.parametrize("kind", SegKind)
@pytest.mark.parametrize("name", SERIES)
def test_every_bright_pixel_of_a_real_series_is_in_the_frame_of_its_own_slice(
    name, kind, shared_data, tmp_path, bright_segmenter, segment_series, read_source,
    read_segmentation,
):  # fmt: skip
    (bright_hu, very_bright_hu), findings = SERIES[name]
    paths = sorted(path for path in (shared_data / name).iterdir() if path.suffix in (".dcm", ""))
    planes = read_source(paths)
    middle = planes[len(planes) // 2]
    side_x_mm = float(middle.lps_mm(middle.hu.shape)[..., 0].mean()) + 0.01
    segmenter = bright_segmenter(side_x_mm, bright_hu, very_bright_hu)

    found = examine_series(paths, SeriesRules(min_slices=3))
    (result,) = segment_series(found, kind, tmp_path, segmenter)

    assert {segmenter.left, segmenter.right} <= segmenter.check(read_segmentation(result), planes)
    assert {finding.reason for finding in found.stacks[0].findings} >= findings
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("dcm_qa_ct_Philips_localizer", Outcome.SKIP, Reason.LOCALIZER),
        ("dcm_qa_ct_Philips_secondary", Outcome.SKIP, Reason.DERIVED),
        ("dcmqi/ct-3slice", Outcome.SKIP, Reason.TOO_FEW_SLICES),
        ("ts_dicom_raw_empty_uids", Outcome.QUARANTINE, Reason.MISSING_IDENTITY),
    ],
)
def test_a_real_series_that_gives_no_result_says_why(name, outcome, reason, shared_data):
    paths = sorted(path for path in (shared_data / name).iterdir() if path.suffix in (".dcm", ""))

    found = examine_series(paths)

    assert (found.outcome, found.reason) == (outcome, reason)
    assert {out.path for out in found.left_out} == set(paths)
