"""Series of which a part, or all, is left out: each says why, by its code."""

from __future__ import annotations

import shutil
from collections import Counter

import pydicom
import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from dicom_seg.read.examination import Outcome
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.read.series import examine_series
from dicom_seg.synthetic.acquisition import Plane, stack, without_planes
from dicom_seg.synthetic.options import ObjectKind
from inference.reasons import Reason

SPACING_MM = (3.0, 1.7, 1.5)
AXIAL = stack((12, 24, 30), SPACING_MM)


def test_a_plain_series_is_processed_without_a_remark(write, judge):
    verdict = judge(write())

    assert (verdict.outcome, verdict.reason) == (Outcome.PROCESS, None)
    assert verdict.findings == frozenset()
    assert verdict.left_out == ()


@pytest.mark.parametrize(
    ("spacing_mm", "missing", "processed"),
    [(3.0, 1, True), (3.0, 2, True), (3.0, 3, False), (5.0, 2, False), (1.0, 4, False)],
    ids=["6 mm", "9 mm", "12 mm", "15 mm is 3 x median", "5 mm is 5 x median"],
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_a_gap_is_bridged_up_to_10_mm_and_3_times_the_median(
    write, kind, spacing_mm, missing, processed, judge
):
    whole = stack((16, 24, 30), (spacing_mm, 1.7, 1.5))
    verdict = judge(write(without_planes(whole, 6, missing), kind=kind))

    if processed:
        assert verdict.outcome is Outcome.PROCESS
        assert verdict.findings == {Reason.MISSING_SLICE}
    else:
        assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MISSING_SLICE)


def test_the_same_instance_with_the_same_bytes_is_ignored(write, tmp_path, judge):
    paths = write()
    again = tmp_path / "again.dcm"
    shutil.copy(paths[3], again)

    verdict = judge([*paths, again])

    assert verdict.outcome is Outcome.PROCESS
    assert [out.reason for out in verdict.left_out] == [Reason.DUPLICATE_INSTANCE]


def test_the_same_instance_with_other_bytes_is_put_aside(write, tmp_path, judge, body):
    paths = write()
    other = write(body(AXIAL, hu=60))  # the same options: the same UIDs

    verdict = judge([*paths, other[3]])

    assert verdict.outcome is Outcome.PROCESS
    assert [(out.path, out.reason) for out in verdict.left_out] == [
        (other[3], Reason.CONFLICTING_INSTANCE)
    ]


def test_one_position_with_equal_pixels_under_other_uids_is_used_once(write, judge):
    paths = write(seed=1, stack=1)
    twins = write(seed=1, stack=2)

    verdict = judge([*paths, *twins[4:6]])

    assert verdict.outcome is Outcome.PROCESS
    assert Reason.DUPLICATE_SLICE in verdict.findings
    assert [out.reason for out in verdict.left_out] == [Reason.DUPLICATE_SLICE] * 2


@pytest.mark.parametrize(
    ("hu", "overrides"),
    [(90, {}), (40, {"RescaleIntercept": -10})],
    ids=["other pixels", "equal pixels of other meaning"],
)
def test_one_position_with_different_values_that_nothing_separates_is_refused(
    write, hu, overrides, judge, body
):
    paths = write(seed=1, stack=1)
    others = write(body(AXIAL, hu), seed=1, stack=2, overrides=overrides)

    verdict = judge([*paths, *others])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.DUPLICATE_POSITION)


def test_a_few_slices_of_another_orientation_fall_out_with_a_remark(write, judge):
    paths = write(seed=1, stack=1)
    scouts = write(stack_of(Plane.CORONAL, 3), seed=1, stack=2)

    verdict = judge([*scouts, *paths])

    assert (verdict.outcome, verdict.stacks) == (Outcome.PROCESS, 1)
    assert Reason.MIXED_ORIENTATION in verdict.findings
    assert {out.path for out in verdict.left_out} == set(scouts)


def test_two_whole_orientations_in_one_series_are_refused(write, judge):
    paths = write(seed=1, stack=1)
    others = write(stack_of(Plane.SAGITTAL, 12), seed=1, stack=2)

    verdict = judge([*others, *paths])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_ORIENTATION)


def stack_of(plane, planes):
    return stack((planes, 24, 30), SPACING_MM, plane=plane)


LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def test_a_localizer_is_skipped(write, judge):
    verdict = judge(write(stack_of(Plane.CORONAL, 2), overrides=LOCALIZER))

    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, Reason.LOCALIZER)


def test_localizers_fall_out_of_a_series_that_has_slices(write, judge):
    paths = write(seed=1, stack=1)
    scouts = write(stack_of(Plane.CORONAL, 2), seed=1, stack=2, overrides=LOCALIZER)

    verdict = judge([*scouts, *paths])

    assert verdict.outcome is Outcome.PROCESS
    assert {out.path: out.reason for out in verdict.left_out} == dict.fromkeys(
        scouts, Reason.LOCALIZER
    )


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"SOPClassUID": SecondaryCaptureImageStorage}, Reason.DERIVED),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Reason.DERIVED),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, Reason.DERIVED),
        ({"SOPClassUID": MRImageStorage, "Modality": "MR"}, Reason.NOT_CT),
        ({"Modality": "PT"}, Reason.NOT_CT),
    ],
    ids=["secondary capture", "screen save", "projection", "MR", "PT"],
)
def test_what_is_no_original_ct_is_skipped(write, overrides, reason, judge):
    verdict = judge(write(overrides=overrides))

    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, reason)


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
@pytest.mark.parametrize(("planes", "outcome"), [(9, Outcome.SKIP), (10, Outcome.PROCESS)])
def test_fewer_slices_than_the_minimum_are_skipped(write, kind, planes, outcome, judge):
    verdict = judge(write(stack((planes, 24, 30), SPACING_MM), kind=kind))

    assert verdict.outcome is outcome
    assert verdict.reason is (Reason.TOO_FEW_SLICES if outcome is Outcome.SKIP else None)


@pytest.mark.parametrize("intercept_hu", [1000, -500])
def test_a_body_that_is_no_tissue_is_remarked_on(write, intercept_hu, judge):
    verdict = judge(write(overrides={"RescaleIntercept": intercept_hu}))

    assert verdict.outcome is Outcome.PROCESS
    assert Reason.IMPLAUSIBLE_HU in verdict.findings


def test_files_that_are_no_dicom_are_listed(write, tmp_path, judge):
    note = tmp_path / "readme.txt"
    note.write_text("not an image")
    paths = write()

    verdict = judge([note, *paths])

    assert verdict.outcome is Outcome.PROCESS
    assert [out.path for out in verdict.left_out] == [note]


def test_left_out_instances_are_counted_once(write, tmp_path, judge):
    paths = write(seed=1, stack=1)
    scouts = write(stack_of(Plane.CORONAL, 2), seed=1, stack=2, overrides=LOCALIZER)
    again = tmp_path / "again.dcm"
    shutil.copy(paths[0], again)

    verdict = judge([*scouts, again, *paths])

    assert Counter(out.reason for out in verdict.left_out) == {
        Reason.LOCALIZER: 2,
        Reason.DUPLICATE_INSTANCE: 1,
    }


@pytest.mark.parametrize(
    ("overrides", "finding"),
    [
        ({"RescaleSlope": 1.01}, Reason.HU_ROUNDED),
        ({"RescaleSlope": 40, "RescaleIntercept": 40}, Reason.HU_CLIPPED),
        ({}, None),
    ],
    ids=["fractions", "beyond 16 bit", "whole"],
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_values_that_are_no_whole_hounsfield_units_are_remarked_on(
    write, judge, kind, overrides, finding
):
    verdict = judge(write(kind=kind, overrides=overrides))

    assert verdict.outcome is Outcome.PROCESS
    assert {Reason.HU_ROUNDED, Reason.HU_CLIPPED} & verdict.findings == {finding} - {None}


def test_attributes_of_the_patient_that_differ_are_remarked_on(write, judge):
    verdict = judge(write(plane_overrides={3: {"AccessionNumber": "OTHER"}}))

    assert verdict.outcome is Outcome.PROCESS
    assert verdict.findings == {Reason.IDENTITY_DIFFERS}


def test_values_that_break_their_representation_are_named_and_not_told(write, judge):
    paths = write()
    with quiet_pydicom():
        for path in paths:
            ds = pydicom.dcmread(path)
            ds.PatientBirthDate = ds.PatientAge = "CANARY"
            ds.PatientWeight = "70.5"
            ds.save_as(path)

    found = examine_series(paths)

    assert found.outcome is Outcome.PROCESS
    (finding,) = [f for f in found.stacks[0].findings if f.reason is Reason.INVALID_VALUE]
    assert finding.detail == "kept: PatientBirthDate; left out: PatientAge"
