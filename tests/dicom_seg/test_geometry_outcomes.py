"""Series that give no result, or a result with a remark: each says why, by its code.

Nothing is dropped silently: every instance is either used or listed with its reason.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.examination import LeftOut, Outcome, SeriesRules
from dicom_seg.reader import read_stack
from dicom_seg.series import examine_series
from dicom_seg.synthetic.acquisition import Plane, stack, without_planes
from dicom_seg.synthetic.options import ObjectKind, PixelFormat, SeriesOptions
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from inference.volume import PADDING_HU, Volume

SHAPE = (12, 24, 30)
SPACING_MM = (3.0, 1.7, 1.5)
AXIAL = stack(SHAPE, SPACING_MM)
MULTIFRAME = (ObjectKind.ENHANCED_CT, ObjectKind.LEGACY_CONVERTED_CT)


def body(geometry, hu=40):
    """A square of tissue in air, another in every plane."""
    array = np.full(geometry.shape, -1000, dtype=np.int16)
    array[:, 4:-4, 4:-4] = hu + np.arange(geometry.shape[0])[:, None, None]
    return Volume(array, geometry)


@dataclass(frozen=True)
class Verdict:
    """What became of a series, its pixels read where that is how it goes on."""

    outcome: Outcome
    reason: Reason | None
    detail: str
    findings: frozenset[Reason]
    left_out: tuple[LeftOut, ...]
    stacks: int


def judge(paths, rules=None) -> Verdict:
    found = examine_series(paths, rules or SeriesRules())
    used = [(row.path, row.frame_number) for plan in found.stacks for row in plan.table.rows]
    assert len(set(used)) == len(used)
    accounted = {path for path, _ in used} | {out.path for out in found.left_out}
    assert accounted == set(paths), "every file is used or listed with its reason"
    findings = {f.reason for plan in found.stacks for f in plan.findings}
    outcome, reason, detail = found.outcome, found.reason, found.detail
    try:
        for plan in found.stacks:
            findings |= {f.reason for f in read_stack(plan).findings}
    except SeriesRefusedError as error:
        outcome, reason, detail = Outcome.REFUSE, error.reason, error.detail
    return Verdict(outcome, reason, detail, frozenset(findings), found.left_out, len(found.stacks))


@pytest.fixture
def write(tmp_path):
    """``write(volume or geometry, **options)``: a series in a folder of its own."""

    def written(what=AXIAL, **options):
        volume = what if isinstance(what, Volume) else body(what)
        folder = tmp_path / f"series{len(list(tmp_path.iterdir()))}"
        return write_ct_series(volume, folder, SeriesOptions(**options))

    return written


def edit(path, change):
    """Apply ``change(ds)`` to a file, however wrong the outcome is."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path, enforce_file_format=False)


def test_a_plain_series_is_processed_without_a_remark(write):
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
    write, kind, spacing_mm, missing, processed
):
    whole = stack((16, 24, 30), (spacing_mm, 1.7, 1.5))
    verdict = judge(write(without_planes(whole, 6, missing), kind=kind))

    if processed:
        assert verdict.outcome is Outcome.PROCESS
        assert verdict.findings == {Reason.MISSING_SLICE}
    else:
        assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MISSING_SLICE)


def test_the_same_instance_with_the_same_bytes_is_ignored(write, tmp_path):
    paths = write()
    again = tmp_path / "again.dcm"
    shutil.copy(paths[3], again)

    verdict = judge([*paths, again])

    assert verdict.outcome is Outcome.PROCESS
    assert [out.reason for out in verdict.left_out] == [Reason.DUPLICATE_INSTANCE]


def test_the_same_instance_with_other_bytes_is_put_aside(write, tmp_path):
    paths = write()
    other = write(body(AXIAL, hu=60))  # the same options: the same UIDs

    verdict = judge([*paths, other[3]])

    assert verdict.outcome is Outcome.PROCESS
    assert [(out.path, out.reason) for out in verdict.left_out] == [
        (other[3], Reason.CONFLICTING_INSTANCE)
    ]


def test_one_position_with_equal_pixels_under_other_uids_is_used_once(write):
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
def test_one_position_with_different_values_that_nothing_separates_is_refused(write, hu, overrides):
    paths = write(seed=1, stack=1)
    others = write(body(AXIAL, hu), seed=1, stack=2, overrides=overrides)

    verdict = judge([*paths, *others])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.DUPLICATE_POSITION)


def test_a_few_slices_of_another_orientation_fall_out_with_a_remark(write):
    paths = write(seed=1, stack=1)
    scouts = write(stack_of(Plane.CORONAL, 3), seed=1, stack=2)

    verdict = judge([*scouts, *paths])

    assert (verdict.outcome, verdict.stacks) == (Outcome.PROCESS, 1)
    assert Reason.MIXED_ORIENTATION in verdict.findings
    assert {out.path for out in verdict.left_out} == set(scouts)


def test_two_whole_orientations_in_one_series_are_refused(write):
    paths = write(seed=1, stack=1)
    others = write(stack_of(Plane.SAGITTAL, 12), seed=1, stack=2)

    verdict = judge([*others, *paths])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_ORIENTATION)


def stack_of(plane, planes):
    return stack((planes, 24, 30), SPACING_MM, plane=plane)


LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def test_a_localizer_is_skipped(write):
    verdict = judge(write(stack_of(Plane.CORONAL, 2), overrides=LOCALIZER))

    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, Reason.LOCALIZER)


def test_localizers_fall_out_of_a_series_that_has_slices(write):
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
        ({"SOPClassUID": MRImageStorage, "Modality": "MR"}, Reason.NOT_CT),
        ({"Modality": "PT"}, Reason.NOT_CT),
    ],
    ids=["secondary capture", "screen save", "MR", "PT"],
)
def test_what_is_no_original_ct_is_skipped(write, overrides, reason):
    verdict = judge(write(overrides=overrides))

    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, reason)


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
@pytest.mark.parametrize(("planes", "outcome"), [(9, Outcome.SKIP), (10, Outcome.PROCESS)])
def test_fewer_slices_than_the_minimum_are_skipped(write, kind, planes, outcome):
    verdict = judge(write(stack((planes, 24, 30), SPACING_MM), kind=kind))

    assert verdict.outcome is outcome
    assert verdict.reason is (Reason.TOO_FEW_SLICES if outcome is Outcome.SKIP else None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"FrameOfReferenceUID": "2.25.7"}, Reason.MIXED_FRAME_OF_REFERENCE),
        ({"PixelSpacing": [1.6, 1.5]}, Reason.MIXED_MATRIX),
    ],
    ids=["frame of reference", "pixel spacing"],
)
def test_planes_that_are_no_one_grid_are_refused(write, change, reason):
    verdict = judge(write(plane_overrides=dict.fromkeys(range(6), change)))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)


def test_planes_of_another_matrix_are_refused(write):
    lower = write(without_planes(AXIAL, 6, 6), seed=1, stack=1)
    upper = replace(without_planes(AXIAL, 0, 6), shape=(6, 24, 32))

    verdict = judge([*lower, *write(upper, seed=1, stack=2)])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_MATRIX)


MISSING = {
    "ImagePositionPatient": Reason.MISSING_GEOMETRY,
    "ImageOrientationPatient": Reason.MISSING_GEOMETRY,
    "PixelSpacing": Reason.MISSING_GEOMETRY,
    "RescaleSlope": Reason.NO_RESCALE,
    "RescaleIntercept": Reason.NO_RESCALE,
}


@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
@pytest.mark.parametrize(("keyword", "reason"), MISSING.items())
def test_a_missing_attribute_is_named_with_its_instance(write, keyword, reason, value):
    paths = write(plane_overrides={4: {keyword: value}})

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)
    assert keyword in verdict.detail.replace(" ", "").replace("(", "").replace(")", "")
    uid = str(pydicom.dcmread(paths[4]).SOPInstanceUID)
    assert uid in verdict.detail or paths[4].name in verdict.detail


@pytest.mark.parametrize("kind", MULTIFRAME, ids=lambda k: k.name)
@pytest.mark.parametrize(("keyword", "reason"), MISSING.items())
def test_a_missing_attribute_of_frames_is_refused(write, kind, keyword, reason):
    verdict = judge(write(kind=kind, overrides={keyword: None}))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)


@pytest.mark.parametrize(
    "change",
    [
        {"PixelSpacing": [0, 1.5]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    ],
    ids=["no distance", "no direction", "rows along columns"],
)
def test_an_impossible_geometry_is_refused(write, change):
    verdict = judge(write(overrides=change))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MISSING_GEOMETRY)


@pytest.mark.parametrize(
    "keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]
)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_an_empty_identity_is_put_aside(write, keyword, value):
    verdict = judge(write(overrides={keyword: value}))

    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINE, Reason.MISSING_IDENTITY)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_one_series_of_two_patients_or_studies_is_put_aside(write, keyword):
    verdict = judge(write(plane_overrides={z: {keyword: "2.25.9"} for z in range(6)}))

    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINE, Reason.MIXED_IDENTITY)


def test_two_series_are_refused_where_one_is_expected(write):
    verdict = judge([*write(seed=1, series=1), *write(seed=1, series=2)])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_SERIES)


def truncate_file(path):
    path.write_bytes(path.read_bytes()[:-200])


def garble_frame(path):
    """A code stream that begins well and goes nowhere."""
    edit(path, lambda ds: setattr(ds, "PixelData", encapsulate([ds.PixelData[16:80]])))


def remove_pixels(path):
    edit(path, lambda ds: delattr(ds, "PixelData"))


@pytest.mark.parametrize(
    ("syntax", "spoil"),
    [
        (PixelSyntax.EXPLICIT_LITTLE, truncate_file),
        (PixelSyntax.EXPLICIT_LITTLE, remove_pixels),
        (PixelSyntax.RLE, truncate_file),
        *(
            (syntax, garble_frame)
            for syntax in PixelSyntax
            if not syntax.is_native and syntax.lossy_method is None
        ),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_corrupt_pixels_of_one_instance_refuse_the_series(write, kind, syntax, spoil):
    paths = write(kind=kind, transfer_syntax_uid=syntax)
    spoilt = paths[len(paths) // 2]
    uid = str(pydicom.dcmread(spoilt).SOPInstanceUID)
    spoil(spoilt)

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.CORRUPT_PIXEL_DATA)
    assert uid in verdict.detail or spoilt.name in verdict.detail


def test_a_syntax_that_no_ct_comes_in_is_refused(write):
    paths = write(transfer_syntax_uid=PixelSyntax.JPEG_2000_LOSSLESS)
    for path in paths:
        path.write_bytes(
            path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.94")
        )

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.UNSUPPORTED_SYNTAX)


@pytest.mark.parametrize("rules", [SeriesRules(max_matrix=24), SeriesRules(max_voxels=8000)])
def test_a_series_beyond_the_limits_is_refused(write, rules):
    verdict = judge(write(), rules)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.TOO_LARGE)


@pytest.mark.parametrize("intercept_hu", [1000, -500])
def test_a_body_that_is_no_tissue_is_remarked_on(write, intercept_hu):
    verdict = judge(write(overrides={"RescaleIntercept": intercept_hu}))

    assert verdict.outcome is Outcome.PROCESS
    assert Reason.IMPLAUSIBLE_HU in verdict.findings


def test_files_that_are_no_dicom_are_listed(write, tmp_path):
    note = tmp_path / "readme.txt"
    note.write_text("not an image")
    paths = write()

    verdict = judge([note, *paths])

    assert verdict.outcome is Outcome.PROCESS
    assert [out.path for out in verdict.left_out] == [note]


def test_a_folder_without_dicom_is_refused(tmp_path):
    note = tmp_path / "readme.txt"
    note.write_text("not an image")

    verdict = judge([note])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.NO_DICOM)


def test_padding_and_hounsfield_units_are_exact(write):
    volume = body(AXIAL)
    volume.hu[:, 0] = PADDING_HU
    pixels = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),), padding=(0, 5))

    (plan,) = examine_series(write(volume, pixels=pixels)).stacks

    np.testing.assert_array_equal(read_stack(plan).volume.hu, volume.hu)


def test_left_out_instances_are_counted_once(write, tmp_path):
    paths = write(seed=1, stack=1)
    scouts = write(stack_of(Plane.CORONAL, 2), seed=1, stack=2, overrides=LOCALIZER)
    again = tmp_path / "again.dcm"
    shutil.copy(paths[0], again)

    verdict = judge([*scouts, again, *paths])

    assert Counter(out.reason for out in verdict.left_out) == {
        Reason.LOCALIZER: 2,
        Reason.DUPLICATE_INSTANCE: 1,
    }
