"""What becomes of a series: cases beside the table of geometries, and real series.

The rows of the table itself are in ``outcomes`` and ``placement``.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file

from dicom_seg.read.examination import Outcome, SeriesRules
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series, outcome_of
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason, describe
from inference.volume import Volume

SHAPE = (12, 16, 20)
AXIAL = stack(SHAPE, (3.0, 1.5, 1.5))
ANY_LENGTH = SeriesRules(min_slices=1)


@pytest.fixture
def write(tmp_path):
    """``write(geometry=..., hu=..., **options)``: a series in a folder of its own."""

    def written(geometry=AXIAL, hu=40, **options):
        array = np.full(geometry.shape, -1000, np.int16)
        array[:, 2:-2, 2:-2] = hu
        folder = tmp_path / f"series{len(list(tmp_path.iterdir()))}"
        return write_ct_series(Volume(array, geometry), folder, SeriesOptions(**options))

    return written


def edit(path, **values):
    ds = pydicom.dcmread(path)
    with disable_value_validation():
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        ds.save_as(path, enforce_file_format=False)


def moved(geometry, z_mm):
    return replace(geometry, origins_mm=geometry.origins_mm + np.array([0, 0, z_mm]))


def table_of(found):
    (plan,) = found.stacks
    return [(row.sop_instance_uid, row.frame_number) for row in plan.table.rows]


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_the_order_of_arrival_changes_nothing(write, rng, kind):
    paths = write(kind=kind, frames_per_instance=None if kind is ObjectKind.CT else 5)
    known = examine_series(paths)

    for _ in range(3):
        found = examine_series([paths[i] for i in rng.permutation(len(paths))])
        assert found.stacks[0].table == known.stacks[0].table
        assert found.stacks[0].findings == known.stacks[0].findings


def test_the_same_path_twice_is_one_file(write):
    paths = write()

    found = examine_series(paths + paths)

    assert found.left_out == ()
    assert len(table_of(found)) == 12


def test_nothing_at_all_is_no_dicom():
    found = examine_series([])

    assert (found.outcome, found.reason) == (Outcome.REFUSE, Reason.NO_DICOM)


def test_the_identity_of_the_series_is_told(write):
    paths = write()
    ds = pydicom.dcmread(paths[0])

    identity = examine_series(paths).identity

    assert identity.patient_id == ds.PatientID
    assert identity.study_instance_uid == ds.StudyInstanceUID
    assert identity.series_instance_uid == ds.SeriesInstanceUID


def test_the_header_of_a_stack_is_that_of_its_first_plane(write, rng):
    paths = write()
    found = examine_series([paths[i] for i in rng.permutation(12)])

    (plan,) = found.stacks
    assert plan.header.SOPInstanceUID == plan.table.rows[0].sop_instance_uid
    assert "PixelData" not in plan.header


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3\n4", "1." * 33, "", "%s", "C:\\x"])
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_what_is_no_uid_is_put_aside(write, tmp_path, keyword, uid):
    paths = write()
    edit(paths[3], **{keyword: uid})
    before = sorted(tmp_path.rglob("*"))

    found = examine_series(paths)

    assert (found.outcome, found.reason) == (Outcome.QUARANTINE, Reason.MISSING_IDENTITY)
    assert len(found.detail.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_every_instance_of_a_refused_series_is_listed(write):
    paths = write()
    edit(paths[3], ImagePositionPatient=None)

    found = examine_series(paths)

    assert {left.path for left in found.left_out} == set(paths)
    assert {left.reason for left in found.left_out} == {Reason.MISSING_GEOMETRY}
    at_fault = [left for left in found.left_out if left.detail != "with its series"]
    assert [left.path for left in at_fault] == [paths[3]]


@pytest.mark.parametrize("size", [400, *range(500, 520), 900])
def test_a_cut_off_header_refuses_the_series_that_it_lies_in(write, size):
    paths = write()
    paths[5].write_bytes(paths[5].read_bytes()[:size])

    found = examine_series(paths)

    assert (found.outcome, found.reason) == (Outcome.REFUSE, Reason.UNREADABLE_FILE)
    assert found.detail.startswith(("file 6: ", "instance "))
    assert paths[5].name not in found.detail


def test_segmentations_reports_and_directories_may_lie_beside_the_series(write, tmp_path):
    paths = write()
    companions = []
    for name in ("reportsi.dcm", "rtstruct.dcm", "DICOMDIR", "image_dfl.dcm"):
        companions.append(tmp_path / name)
        shutil.copy(get_testdata_file(name), companions[-1])
    edit(companions[3], SOPClassUID="1.2.3")  # deflated: known by its file meta only

    found = examine_series([*companions, *paths])

    assert found.outcome is Outcome.PROCESS
    assert {left.path: left.reason for left in found.left_out} == dict.fromkeys(
        companions, Reason.NOT_CT
    )


def test_companions_alone_are_no_ct(tmp_path):
    shutil.copy(get_testdata_file("DICOMDIR"), tmp_path / "DICOMDIR")

    found = examine_series([tmp_path / "DICOMDIR"])

    assert (found.outcome, found.reason) == (Outcome.SKIP, Reason.NOT_CT)


def test_differing_patient_attributes_are_a_finding_that_quotes_none(write):
    paths = write()
    edit(paths[4], PatientName="Doe^Jane")

    (plan,) = examine_series(paths).stacks

    assert [(f.reason, f.detail) for f in plan.findings] == [
        (Reason.IDENTITY_DIFFERS, "PatientName")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": "Doe^Jane", "PatientBirthDate": "19440101"},
        {"IssuerOfPatientID": "HOSPITAL B"},
    ],
    ids=["name and date of birth", "issuer"],
)
def test_one_id_of_two_people_is_put_aside(write, changes):
    paths = write()
    for path in paths[6:]:
        edit(path, **changes)

    found = examine_series(paths)

    assert (found.outcome, found.reason) == (Outcome.QUARANTINE, Reason.MIXED_IDENTITY)
    assert "Doe" not in found.detail


def test_the_first_of_two_instances_with_one_uid_is_kept(write, tmp_path):
    paths = write()
    other = tmp_path / "other.dcm"
    shutil.copy(paths[3], other)
    edit(other, RescaleIntercept=5)

    for order, kept in (([*paths, other], paths[3]), ([other, *paths], other)):
        found = examine_series(order)
        assert kept in {row.path for row in found.stacks[0].table.rows}
        assert [left.reason for left in found.left_out] == [Reason.CONFLICTING_INSTANCE]


def test_bytes_of_the_file_meta_do_not_make_a_conflict(write, tmp_path):
    paths = write()
    again = tmp_path / "again.dcm"
    ds = pydicom.dcmread(paths[3])
    ds.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    ds.save_as(again)

    found = examine_series([*paths, again])

    assert [left.reason for left in found.left_out] == [Reason.DUPLICATE_INSTANCE]


def test_a_stack_beyond_repair_is_left_out_and_the_other_one_processed(write):
    whole = write(seed=1, stack=1, acquisition_number=1)
    holed = write(seed=1, stack=2, acquisition_number=2)[:3]
    holed += write(seed=1, stack=2, acquisition_number=2)[9:]
    rules = SeriesRules(min_slices=5)

    found = examine_series([*whole, *holed], rules)

    assert [plan.separated_by for plan in found.stacks] == ["AcquisitionNumber=1"]
    assert Counter(left.reason for left in found.left_out) == {Reason.MISSING_SLICE: 6}


def test_a_stack_of_too_few_planes_falls_out_of_a_split(write):
    paths = write(seed=1, stack=1)
    (extra,) = write(seed=1, stack=2, hu=70, acquisition_number=2)[5:6]

    found = examine_series([*paths, extra])

    assert len(table_of(found)) == 12
    assert [(left.path, left.reason) for left in found.left_out] == [(extra, Reason.TOO_FEW_SLICES)]


def test_acquisitions_between_one_another_are_two_stacks(write):
    paths = write(seed=1, stack=1)
    paths += write(moved(AXIAL, 1.0), seed=1, stack=2, acquisition_number=2)

    found = examine_series(paths)

    assert [len(plan.table.rows) for plan in found.stacks] == [12, 12]
    assert {f.reason for plan in found.stacks for f in plan.findings} == {Reason.SPLIT_STACK}


def test_acquisitions_that_make_one_even_stack_stay_one(write):
    paths = write(seed=1, stack=1)
    paths += write(moved(AXIAL, 1.5), seed=1, stack=2, acquisition_number=2)

    found = examine_series(paths)

    assert len(table_of(found)) == 24
    assert found.stacks[0].findings == ()


def test_acquisitions_that_follow_each_other_are_one_stack(write):
    paths = write(seed=1, stack=1)
    paths += write(moved(AXIAL, 36.0), seed=1, stack=2, acquisition_number=2)

    assert len(table_of(examine_series(paths))) == 24


def test_twins_a_hair_apart_are_one_plane(write):
    paths = write(seed=1, stack=1)
    twin = write(moved(AXIAL, 0.1), seed=1, stack=2)[4]

    found = examine_series([*paths, twin])

    assert len(table_of(found)) == 12
    assert [left.reason for left in found.left_out] == [Reason.DUPLICATE_SLICE]


def test_a_pipe_among_the_files_is_listed_and_never_opened(write, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer
    paths = write()

    found = examine_series([*paths, pipe])

    assert found.outcome is Outcome.PROCESS
    assert [(left.path, left.reason) for left in found.left_out] == [(pipe, Reason.NO_DICOM)]


def test_equal_pixels_that_lie_beside_one_another_are_no_twins(write):
    paths = write(seed=1, stack=1)
    beside = replace(AXIAL, origins_mm=AXIAL.origins_mm + np.array([1.0, 0, 0]))
    twin = write(beside, seed=1, stack=2)[4]

    found = examine_series([*paths, twin])

    assert (found.outcome, found.reason) == (Outcome.REFUSE, Reason.DUPLICATE_POSITION)


def test_a_twin_within_one_of_two_phases_is_left_out(write):
    paths = write(seed=1, stack=1, acquisition_number=1)
    paths += write(seed=1, stack=2, acquisition_number=2, hu=90)
    twin = write(seed=1, stack=3, acquisition_number=2, hu=90)[7]

    found = examine_series([*paths, twin])

    assert [len(plan.table.rows) for plan in found.stacks] == [12, 12]
    assert [left.reason for left in found.left_out] == [Reason.DUPLICATE_SLICE]


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_frame_of_reference_is_derived_from_the_series(write, value):
    paths = write(overrides={"FrameOfReferenceUID": value})

    first, again = examine_series(paths).stacks[0], examine_series(paths[::-1]).stacks[0]

    assert [f.reason for f in first.findings] == [Reason.FRAME_OF_REFERENCE_DERIVED]
    assert first.table.frame_of_reference_uid.startswith("2.25.")
    assert first.table.frame_of_reference_uid == again.table.frame_of_reference_uid


@pytest.mark.parametrize(
    ("image_type", "change", "outcome", "reason"),
    [
        ("DERIVED", {"RescaleType": "Z_EFF"}, Outcome.SKIP, Reason.DERIVED),
        ("ORIGINAL", {"RescaleType": "Z_EFF"}, Outcome.REFUSE, Reason.NO_RESCALE),
        ("DERIVED", {"ImagePositionPatient": None}, Outcome.SKIP, Reason.DERIVED),
        ("ORIGINAL", {"ImagePositionPatient": None}, Outcome.REFUSE, Reason.MISSING_GEOMETRY),
        ("DERIVED", {"RescaleType": "HU"}, Outcome.PROCESS, None),
    ],
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_derived_images_need_a_place_and_hounsfield_units(
    write, kind, image_type, change, outcome, reason
):
    frame = "ImageType" if kind is ObjectKind.CT else "FrameType"
    overrides = {frame: [image_type, "PRIMARY", "AXIAL", "NONE"], **change}

    found = examine_series(write(kind=kind, overrides=overrides))

    assert (found.outcome, found.reason) == (outcome, reason)


def test_frames_that_are_no_slices_are_left_out_one_by_one(write):
    (path,) = write(kind=ObjectKind.ENHANCED_CT)
    ds = pydicom.dcmread(path)
    scout = Dataset()
    scout.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = Sequence([scout])
    ds.save_as(path)

    found = examine_series([path])

    assert len(table_of(found)) == 11
    (left,) = found.left_out
    assert (left.reason, left.frame_number) == (Reason.LOCALIZER, 1)
    assert {frame for _, frame in table_of(found)} == set(range(2, 13))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NumberOfFrames": 11}, Reason.MISSING_GEOMETRY),
        ({"NumberOfFrames": None}, Reason.MISSING_GEOMETRY),
        ({"NumberOfFrames": 2_000_000_000}, Reason.MISSING_GEOMETRY),
        ({"PerFrameFunctionalGroupsSequence": []}, Reason.MISSING_GEOMETRY),
    ],
    ids=["too few", "none", "two billion", "no groups"],
)
def test_frames_that_do_not_add_up_are_refused(write, change, reason):
    (path,) = write(kind=ObjectKind.ENHANCED_CT)
    edit(path, **change)

    found = examine_series([path])

    assert (found.outcome, found.reason) == (Outcome.REFUSE, reason)


BAD_PIXEL_HEADERS = {
    "rows of 4 bytes": (b"\x28\0\x10\0US\x02\0\x10\0", b"\x28\0\x10\0UL\x04\0\x10\0\0\0"),
    "no rows": (b"\x28\0\x10\0US\x02\0\x10\0", b""),
    "empty rows": (b"\x28\0\x10\0US\x02\0\x10\0", b"\x28\0\x10\0US\0\0"),
    "two values": (b"\x28\0\x10\0US\x02\0\x10\0", b"\x28\0\x10\0US\x04\0\x10\0\x10\0"),
    "zero rows": (b"\x28\0\x10\0US\x02\0\x10\0", b"\x28\0\x10\0US\x02\0\0\0"),
    "65535 rows": (b"\x28\0\x10\0US\x02\0\x10\0", b"\x28\0\x10\0US\x02\0\xff\xff"),
    "more columns than pixels": (b"\x28\0\x11\0US\x02\0\x14\0", b"\x28\0\x11\0US\x02\0\x15\0"),
    "32 bits": (b"\x28\0\0\x01US\x02\0\x10\0", b"\x28\0\0\x01US\x02\0\x20\0"),
    "1 bit": (b"\x28\0\0\x01US\x02\0\x10\0", b"\x28\0\0\x01US\x02\0\x01\0"),
    "17 bits stored": (b"\x28\0\x01\x01US\x02\0\x10\0", b"\x28\0\x01\x01US\x02\0\x11\0"),
    "0 bits stored": (b"\x28\0\x01\x01US\x02\0\x10\0", b"\x28\0\x01\x01US\x02\0\0\0"),
    "high bit 16": (b"\x28\0\x02\x01US\x02\0\x0f\0", b"\x28\0\x02\x01US\x02\0\x10\0"),
    "representation 2": (b"\x28\0\x03\x01US\x02\0\x01\0", b"\x28\0\x03\x01US\x02\0\x02\0"),
    "no representation": (b"\x28\0\x03\x01US\x02\0\x01\0", b""),
    "3 samples": (b"\x28\0\x02\0US\x02\0\x01\0", b"\x28\0\x02\0US\x02\0\x03\0"),
}


@pytest.mark.parametrize("case", BAD_PIXEL_HEADERS)
def test_bad_pixel_headers_are_refused_before_any_pixel_is_read(write, case):
    paths = write()
    found, put = BAD_PIXEL_HEADERS[case]
    content = paths[6].read_bytes()
    assert content.count(found) == 1
    paths[6].write_bytes(content.replace(found, put))
    uid = str(pydicom.dcmread(paths[6], stop_before_pixels=True).SOPInstanceUID)

    examined = examine_series(paths)

    assert examined.outcome is Outcome.REFUSE
    assert examined.reason in {
        Reason.MISSING_GEOMETRY, Reason.TOO_LARGE, Reason.CORRUPT_PIXEL_DATA
    }  # fmt: skip
    assert uid in examined.detail


def test_outcomes_agree_with_the_table_of_reasons():
    for reason in Reason:
        skipped = describe(reason).outcome == "skipped"
        assert (outcome_of(reason) is Outcome.SKIP) == skipped


def processed(folder, **findings):
    (plan,) = examine_series(sorted(folder.glob("*.dcm")), ANY_LENGTH).stacks
    return plan


@pytest.mark.shared
class TestRealSeries:
    """Series of real scanners; ``INDEX.md`` beside them says what each is."""

    def outcome(self, folder):
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".dcm")
        found = examine_series(paths, ANY_LENGTH)
        assert {row.path for p in found.stacks for row in p.table.rows} | {
            left.path for left in found.left_out
        } == set(paths)
        return found

    def test_a_clean_series(self, shared_data):
        (plan,) = self.outcome(shared_data / "ts_dicom").stacks

        geometry = plan.table.geometry()
        assert plan.findings == ()
        assert geometry.shape == (20, 512, 512)
        assert geometry.spacing_mm == pytest.approx((2.0, 0.9765625, 0.9765625))

    def test_tilt_is_measured_as_the_scanner_says(self, shared_data):
        (plan,) = self.outcome(shared_data / "dcm_qa_ct_Philips_tilt16_5").stacks

        assert [(f.reason, f.detail) for f in plan.findings] == [
            (Reason.GANTRY_TILT, "16.50 degrees")
        ]
        assert plan.table.geometry().spacing_mm[0] == pytest.approx(2.397, abs=1e-3)

    def test_the_same_scanner_without_tilt(self, shared_data):
        (plan,) = self.outcome(shared_data / "dcm_qa_ct_Philips_notilt").stacks

        assert plan.findings == ()
        assert plan.table.geometry().spacing_mm[0] == pytest.approx(5.0)

    def test_feet_first(self, shared_data):
        (plan,) = self.outcome(shared_data / "dcmqi" / "ct-3slice").stacks

        assert plan.findings == ()
        assert plan.table.geometry().spacing_mm[0] == pytest.approx(1.0)  # not the thickness, 1.25

    @pytest.mark.parametrize(
        ("folder", "outcome", "reason"),
        [
            ("dcm_qa_ct_Philips_localizer", Outcome.SKIP, Reason.LOCALIZER),
            ("dcm_qa_ct_Philips_secondary", Outcome.SKIP, Reason.DERIVED),
            ("ts_dicom_raw_empty_uids", Outcome.QUARANTINE, Reason.MISSING_IDENTITY),
        ],
    )
    def test_what_gives_no_result(self, shared_data, folder, outcome, reason):
        found = self.outcome(shared_data / folder)

        assert (found.outcome, found.reason, found.stacks) == (outcome, reason, ())

    def test_slices_and_their_conversion_to_multi_frame_give_one_volume(self, shared_data):
        folder = shared_data / "dcmqi" / "24x38x3"
        (slices,) = self.outcome(folder / "image").stacks
        (frames,) = self.outcome(folder / "multiframe").stacks

        one, other = read_stack(slices).volume, read_stack(frames).volume
        np.testing.assert_array_equal(one.hu, other.hu)
        assert one.geometry.matches(other.geometry, tolerance_mm=1e-6)
        assert [row.frame_number for row in frames.table.rows] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("name", "outcome", "reason"),
        [
            ("eCT_Supplemental.dcm", Outcome.SKIP, Reason.DERIVED),
            ("bad_sequence.dcm", Outcome.QUARANTINE, Reason.MISSING_IDENTITY),
            ("emri_small_jpeg_2k_lossless_too_short.dcm", Outcome.SKIP, Reason.NOT_CT),
            ("explicit_VR-UN.dcm", Outcome.PROCESS, None),
            ("693_J2KR.dcm", Outcome.PROCESS, None),
        ],
    )
    def test_odd_instances(self, shared_data, name, outcome, reason):
        found = examine_series([shared_data / "pydicom_data" / name], ANY_LENGTH)

        assert (found.outcome, found.reason) == (outcome, reason)

    def test_a_folder_of_several_series_is_refused_with_a_list(self, shared_data):
        paths = sorted((shared_data / "dcmqi").rglob("*"))

        found = examine_series([path for path in paths if path.is_file()])

        assert (found.outcome, found.reason) == (Outcome.REFUSE, Reason.MIXED_SERIES)
        assert found.detail.count("instances)") == 3
