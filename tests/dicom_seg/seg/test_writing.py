"""What a Segmentation says: whose it is, who made it, of what, and for what."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_seg.codes import BODY_STRUCTURE, code_of
from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import SourceInstance
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.read.series import examine_series
from dicom_seg.read.slice_table import SliceTable
from dicom_seg.segmentation import (
    Encoding,
    Equipment,
    Predecessor,
    SegKind,
    result_identity,
)
from dicom_seg.synthetic.options import SeriesOptions, Subject
from dicom_seg.verification import verify_segmentation
from inference.finding import Finding
from inference.identity import SegmenterIdentity
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, structure

JAPANESE = Subject(patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", patient_id="JP1")
COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription",
    "PatientComments", "SpecificCharacterSet",
)  # fmt: skip


def stored_bytes(path, keyword: str) -> bytes | None:
    element = pydicom.dcmread(path, stop_before_pixels=True).get_item(keyword)
    if element is None or not isinstance(element.value, bytes):
        return None if element is None else str(element.value).encode()
    return element.value.rstrip(b" \0")


@pytest.mark.parametrize("decoded_before", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("character_set", "subject", "text"),
    [
        ("ISO_IR 100", Subject(patient_name="Müller^Jörg"), "Schädel für Übung"),
        (["", "ISO 2022 IR 87"], JAPANESE, "検査の説明"),
        ("ISO_IR 192", JAPANESE, "検査 – Übung 한국"),
        ("ISO_IR 144", Subject(patient_name="Люкceмбypг"), "Голова"),
    ],
    ids=["german", "japanese", "unicode", "cyrillic"],
)
def test_names_and_texts_come_out_as_they_went_in(
    make_case, make_request, decoded_before, syntax, character_set, subject, text
) -> None:
    texts = {"SpecificCharacterSet": character_set, "StudyDescription": text}
    case = make_case(
        options=SeriesOptions(
            transfer_syntax_uid=syntax,
            subject=subject,
            overrides={**texts, "PatientComments": text, "Manufacturer": text[:7]},
        )
    )
    if decoded_before:
        list(case.plan.header.iterall())

    written = case.write(make_request())

    for keyword in COPIED:
        assert stored_bytes(written.path, keyword) == stored_bytes(case.paths[0], keyword), keyword
    ds = pydicom.dcmread(written.path)
    assert str(ds.PatientName) == subject.patient_name
    assert ds.ContributingEquipmentSequence[0].Manufacturer == text[:7]
    verify_segmentation(written.path, case.labels, case.plan, make_request())


def test_bytes_that_their_character_set_does_not_know_survive(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions(subject=Subject(patient_name="PLACEHOLDERNAME12")))
    raw = case.paths[0].read_bytes()
    name = "Müller^Jörg 12345".encode("latin-1")  # and the file does not say so
    case.paths[0].write_bytes(raw.replace(b"PLACEHOLDERNAME12", name))
    header = pydicom.dcmread(case.paths[0], stop_before_pixels=True)
    del header.SpecificCharacterSet
    case = replace(case, plan=replace(case.plan, header=header))

    path = case.write(make_request()).path

    assert stored_bytes(path, "PatientName") == name


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_name_under_a_wrong_character_set_survives_both_kinds(
    make_case, make_request, syntax
) -> None:
    case = make_case(
        options=SeriesOptions(
            transfer_syntax_uid=syntax,
            subject=Subject(patient_name="PLACEHOLDERNAME12", patient_id="PLACEID1"),
            overrides={"SpecificCharacterSet": "ISO_IR 192"},
        )
    )
    name, patient_id = (text.encode("latin-1") for text in ("Müller^Jörg 12345", "Straße 1"))
    for path in case.paths:
        raw = path.read_bytes().replace(b"PLACEHOLDERNAME12", name)
        path.write_bytes(raw.replace(b"PLACEID1", patient_id))
    (plan,) = examine_series(case.paths).stacks
    case = replace(case, plan=plan)

    for kind in SegKind:
        path = case.write(make_request(kind=kind), f"{kind}.dcm").path
        verify_segmentation(path, case.labels, plan, make_request(kind=kind))

        assert stored_bytes(path, "PatientName") == name
        assert stored_bytes(path, "PatientID") == patient_id


@pytest.mark.parametrize("thickness", [b"inf ", b"1e400 ", b"1e-300", b"0 ", b"-1"])
def test_an_impossible_slice_thickness_is_replaced_by_the_distance_of_planes(
    make_case, make_request, thickness
) -> None:
    case = make_case()
    tag = pydicom.tag.Tag("SliceThickness")
    case.plan.header[tag] = pydicom.dataelem.RawDataElement(
        tag, "DS", len(thickness), thickness, 0, False, True
    )

    ds = pydicom.dcmread(case.write(make_request()).path)

    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == measures.SpacingBetweenSlices


def test_optional_sequences_without_items_are_left_out(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions(overrides={"ReferencedStudySequence": []}))

    ds = pydicom.dcmread(case.write(make_request()).path)

    assert "ReferencedStudySequence" not in ds


def test_sequences_of_an_implicit_source_are_rewritten(make_case, make_request) -> None:
    other = pydicom.Dataset()
    other.PatientID = "ALT-1"
    other.TypeOfPatientID = "TEXT"
    case = make_case(
        options=SeriesOptions(
            transfer_syntax_uid=ImplicitVRLittleEndian,
            overrides={"OtherPatientIDsSequence": [other]},
        )
    )

    ds = pydicom.dcmread(case.write(make_request()).path)

    assert ds.OtherPatientIDsSequence[0].PatientID == "ALT-1"


def test_odd_values_are_kept_where_they_say_whose_the_object_is_and_left_out_elsewhere(
    make_case, make_request
) -> None:
    case = make_case()
    header = case.plan.header
    for keyword, value in {
        "PatientSex": b"unknown ",
        "PatientBirthDate": b"12.03.1950",
        "IssuerOfPatientID": b"x" * 70,
        "StudyID": b"longer than sixteen characters",
        "StudyTime": b"9:15",
        "PatientWeight": b"n/a ",
        "PatientAge": b"45",
        "EthnicGroup": b"longer than sixteen characters",
        "Occupation": b"one\\two ",
        "PatientSize": b"1.80",
        "SliceThickness": b"thin",
    }.items():
        tag = pydicom.datadict.tag_for_keyword(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        header[tag] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True
        )
    with quiet_pydicom():
        other = Dataset()
        other.PatientID = "ALT-1"
        other.TypeOfPatientID = "lower case"
        header.OtherPatientIDsSequence = [other]

    path = case.write(make_request()).path

    assert stored_bytes(path, "PatientSex") == b"unknown"
    assert stored_bytes(path, "PatientBirthDate") == b"12.03.1950"
    assert stored_bytes(path, "PatientSize") == b"1.80"
    ds = pydicom.dcmread(path)
    assert "IssuerOfPatientID" in ds
    for keyword in (
        "PatientWeight", "PatientAge", "EthnicGroup", "Occupation", "OtherPatientIDsSequence",
    ):  # fmt: skip
        assert keyword not in ds
    verify_segmentation(path, case.labels, case.plan, make_request())


def test_what_the_source_does_not_say_is_empty_not_invented(make_case, make_request) -> None:
    absent = ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID")
    case = make_case(options=SeriesOptions(overrides=dict.fromkeys(absent)))

    ds = pydicom.dcmread(case.write(make_request()).path)

    assert [(keyword, ds[keyword].is_empty) for keyword in absent] == [
        (keyword, True) for keyword in absent
    ]


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", None])
def test_no_identity_no_object(make_case, make_request, tmp_path, keyword, value) -> None:
    case = make_case()
    setattr(case.plan.header, keyword, value)

    with pytest.raises(SegmentationError, match=keyword) as error:
        case.write(make_request())

    assert error.value.reason is Reason.MISSING_IDENTITY
    assert not (case.folder / "seg.dcm").exists()


def test_an_instance_without_uid_is_no_source(make_case, make_request) -> None:
    case = make_case()
    rows = (replace(case.plan.table.rows[0], sop_instance_uid=""), *case.plan.table.rows[1:])
    table = SliceTable(rows, case.plan.table.frame_of_reference_uid)
    case = replace(case, plan=replace(case.plan, table=table))

    with pytest.raises(SegmentationError) as error:
        case.write(make_request())
    assert error.value.reason is Reason.MISSING_IDENTITY


def test_without_a_frame_of_reference_one_is_derived_for_the_series(
    make_case, make_request
) -> None:
    case = make_case()
    table = SliceTable(case.plan.table.rows, "")
    case = replace(case, plan=replace(case.plan, table=table))

    first = pydicom.dcmread(case.write(make_request()).path)
    second = pydicom.dcmread(case.write(make_request(SegKind.LABELMAP), "2.dcm").path)

    assert first.FrameOfReferenceUID.startswith("2.25.")
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    verify_segmentation(case.folder / "seg.dcm", case.labels, case.plan, make_request())


@pytest.mark.parametrize(
    ("kind", "encoding", "syntax"),
    [
        (SegKind.BINARY, None, ExplicitVRLittleEndian),
        (SegKind.BINARY, Encoding.DEFLATED, DeflatedExplicitVRLittleEndian),
        (SegKind.LABELMAP, None, RLELossless),
        (SegKind.LABELMAP, Encoding.NATIVE, ExplicitVRLittleEndian),
    ],
)
def test_the_same_input_gives_the_same_bytes_in_any_order_of_delivery(
    make_case, make_request, kind, encoding, syntax
) -> None:
    case = make_case()
    request = make_request(kind, encoding=encoding)
    files = {row.sop_instance_uid: row.path for row in case.plan.table.rows}
    digests = tuple(
        SourceInstance(uid, hashlib.sha256(path.read_bytes()).hexdigest())
        for uid, path in files.items()
    )

    first = case.write(replace(request, sources=digests))
    second = case.write(replace(request, sources=tuple(reversed(digests))), "again.dcm")

    assert first.path.read_bytes() == second.path.read_bytes()
    assert first == replace(second, path=first.path)
    assert first.transfer_syntax_uid == syntax
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.size_bytes == first.path.stat().st_size
    meta = pydicom.filereader.read_file_meta_info(first.path)
    assert meta.TransferSyntaxUID == syntax
    body = first.size_bytes - 132 - 12 - meta.FileMetaInformationGroupLength
    assert body % 2 == 0
    assert pydicom.dcmread(first.path).SOPInstanceUID == first.sop_instance_uid


def test_another_time_changes_no_uid(make_case, make_request) -> None:
    case = make_case()

    first = case.write(make_request())
    later = case.write(make_request(created=datetime(2027, 1, 1)), "later.dcm")

    assert later.sop_instance_uid == first.sop_instance_uid
    assert later.series_instance_uid == first.series_instance_uid
    assert later.sha256 != first.sha256


def test_the_identity_is_known_before_anything_is_written(make_case, make_request) -> None:
    case = make_case()
    request = make_request(revision=3)

    identity = result_identity(case.plan, request)

    assert case.write(request).sop_instance_uid == identity.uid("instance")


def test_a_source_file_that_is_gone_is_named(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions())
    case.paths[4].unlink()

    with pytest.raises(SegmentationError, match=case.plan.table.rows[4].sop_instance_uid) as error:
        case.write(make_request())
    assert error.value.reason is Reason.SOURCE_MISSING


def test_results_say_that_they_are_investigational(make_case, make_request) -> None:
    ds = pydicom.dcmread(make_case().write(make_request()).path)

    assert "investigational" in ds.SeriesDescription
    assert "investigational" in ds.ContentDescription
    assert "wholebody 1.2: 6 of 104 structures" in ds.DerivationDescription
    assert ds.ContentLabel == "ANATOMY"


def only(algorithm: SegmenterIdentity, *names: str) -> SegmenterIdentity:
    """The same segmenter, which looks for these alone."""
    return replace(
        algorithm, parameters=(*algorithm.parameters, ("structures", " ".join(sorted(names))))
    )


def test_a_result_of_chosen_structures_is_not_told_as_a_whole_one(
    make_case, make_request, algorithm
) -> None:
    case = make_case()
    wanted = sorted(["spleen", *(structure(each).name for each in case.labels.present())])
    request = make_request(algorithm=only(algorithm, *wanted))

    ds = pydicom.dcmread(case.write(request).path)

    names = ", ".join(wanted)
    assert "of 104" not in ds.DerivationDescription
    assert (
        f"6 of the 7 wanted structures ({names}) found; no others were looked for. Revision 1."
        in ds.DerivationDescription
    )
    assert f"only these structures were looked for: {names}" in ds.ImageComments.splitlines()


def test_many_chosen_structures_leave_room_for_what_is_replaced(
    make_case, make_request, algorithm
) -> None:
    case = make_case()
    before = case.write(make_request(), "1.dcm")
    names = sorted(STRUCTURE_BY_NAME)[:103]
    named = Predecessor(before.sop_class_uid, before.sop_instance_uid, before.series_instance_uid)
    request = make_request(algorithm=only(algorithm, *names), revision=2, predecessor=named)

    ds = pydicom.dcmread(case.write(request).path)

    assert "of the 103 wanted structures found; no others" in ds.DerivationDescription
    assert ds.DerivationDescription.endswith(f"replaces {before.sop_instance_uid}.")
    assert ds.ImageComments.count(", ") == 102


def test_a_site_may_say_it_in_its_own_words(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions(overrides={"SpecificCharacterSet": "ISO_IR 100"}))
    request = make_request(
        series_description="Organe für die Übung \\ Forschung " + "x" * 80,
        content_description="Nur für die Forschung",
    )

    ds = pydicom.dcmread(case.write(request).path)

    assert ds.SeriesDescription == ("Organe für die Übung / Forschung " + "x" * 80)[:64]
    assert ds.ContentDescription == "Nur für die Forschung"


def test_words_that_the_character_set_lacks_lose_their_accents(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions(overrides={"SpecificCharacterSet": None}))

    ds = pydicom.dcmread(case.write(make_request(series_description="Größe 山 für")).path)

    assert ds.SeriesDescription == "Grosse ? fur"


def test_a_demonstration_says_so_whatever_the_site_says(make_case, make_request, algorithm) -> None:
    case = make_case()
    request = make_request(
        algorithm=replace(algorithm, demonstration=True), content_description="Organs"
    )

    plain = pydicom.dcmread(case.write(request).path)
    override = replace(request, series_description="Organs")
    overridden = pydicom.dcmread(case.write(override, "2.dcm").path)

    assert "DEMONSTRATION" in plain.SeriesDescription
    for ds in (plain, overridden):
        assert "demonstration" in ds.ContentDescription
        assert all("synthetic data" in s.SegmentDescription for s in ds.SegmentSequence)


def test_findings_and_truncation_travel_with_the_result(make_case, make_request) -> None:
    case = make_case()
    tilt = Finding(Reason.GANTRY_TILT, "16.5 degrees")
    plan = replace(case.plan, findings=(tilt,), separated_by="AcquisitionNumber=2")
    first, second, *_ = case.labels.present()
    request = make_request(
        findings=(tilt, Finding(Reason.HU_ROUNDED, "0.5 HU")), truncated=frozenset({second})
    )

    ds = pydicom.dcmread(replace(case, plan=plan).write(request).path)

    assert ds.ImageComments.splitlines() == [
        "stack: AcquisitionNumber=2",
        "gantry-tilt: 16.5 degrees",
        "hu-rounded: 0.5 HU",
    ]
    described = {s.SegmentLabel: s.get("SegmentDescription", "") for s in ds.SegmentSequence}
    assert "border of the scan" in described[code_of(second).name]
    assert described[code_of(first).name] == ""


def test_a_revision_names_what_it_replaces(make_case, make_request) -> None:
    case = make_case()
    before = case.write(make_request(), "1.dcm")
    request = make_request(
        revision=2,
        predecessor=Predecessor(
            before.sop_class_uid, before.sop_instance_uid, before.series_instance_uid
        ),
    )

    after = case.write(request)

    assert after.sop_instance_uid != before.sop_instance_uid
    assert after.series_instance_uid != before.series_instance_uid
    ds = pydicom.dcmread(after.path)
    (reference,) = ds.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == before.sop_instance_uid
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121348"
    assert f"Revision 2, replaces {before.sop_instance_uid}" in ds.DerivationDescription
    assert [s.SeriesInstanceUID for s in ds.ReferencedSeriesSequence] == [
        case.plan.header.SeriesInstanceUID,
        before.series_instance_uid,
    ]
    earlier = pydicom.dcmread(before.path)
    assert [s.TrackingUID for s in ds.SegmentSequence] == [
        s.TrackingUID for s in earlier.SegmentSequence
    ]
    verify_segmentation(after.path, case.labels, case.plan, request)


def test_loss_in_the_source_stays_on_record(make_case, make_request) -> None:
    case = make_case(
        options=SeriesOptions(
            overrides={
                "LossyImageCompression": "01",
                "LossyImageCompressionRatio": "9.5",
                "LossyImageCompressionMethod": "ISO_15444_1",
            }
        )
    )

    ds = pydicom.dcmread(case.write(make_request()).path)

    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionRatio == 9.5
    assert ds.LossyImageCompressionMethod == "ISO_15444_1"


@pytest.mark.parametrize(
    ("offset", "expected"),
    [("+0200", ("20261121", "121500.000000")), (None, ("20261121", "051500.000000"))],
)
def test_times_are_those_of_the_request_in_the_time_zone_of_the_source(
    make_case, make_request, offset, expected
) -> None:
    case = make_case(options=SeriesOptions(overrides={"TimezoneOffsetFromUTC": offset}))
    created = datetime(2026, 11, 21, 5, 15, tzinfo=timezone(timedelta(hours=-5)))

    ds = pydicom.dcmread(case.write(make_request(created=created)).path)

    for what in ("Content", "Series", "InstanceCreation"):
        assert (ds[f"{what}Date"].value, ds[f"{what}Time"].value) == expected


def test_who_made_it_with_what_is_in_every_segment(make_case, make_request, algorithm) -> None:
    request = make_request(
        equipment=Equipment("Radiology", "PACS Bridge", ("9.9", "1.0"), "SN-7"),
        category=BODY_STRUCTURE,
    )

    ds = pydicom.dcmread(make_case().write(request).path)

    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("Radiology", "PACS Bridge")
    assert (list(ds.SoftwareVersions), ds.DeviceSerialNumber) == (["9.9", "1.0"], "SN-7")
    scanner, model = ds.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert model.DeviceSerialNumber == algorithm.digest
    for segment in ds.SegmentSequence:
        (used,) = segment.SegmentationAlgorithmIdentificationSequence
        assert used.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert (used.AlgorithmName, used.AlgorithmVersion) == ("wholebody", "1.2")
        assert used.AlgorithmSource == algorithm.source
        assert used.AlgorithmParameters == (
            f"weights_sha256={algorithm.digest},overlap=0.25,spacing_mm=3.0"
        )
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
        assert segment.TrackingUID.startswith("2.25.")


def test_left_and_right_are_told_apart_by_a_modifier_on_the_type(make_case, make_request) -> None:
    ds = pydicom.dcmread(make_case().write(make_request(SegKind.LABELMAP)).path)

    side = {
        s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0]
        .SegmentedPropertyTypeModifierCodeSequence[0]
        .CodeMeaning
        for s in ds.SegmentSequence
        if "left" in s.SegmentLabel or "right" in s.SegmentLabel
    }
    assert side == {
        "kidney_left": "Left",
        "kidney_right": "Right",
        "rib_left_7": "Left",
        "rib_right_7": "Right",
    }


def test_a_labelmap_has_segments_1_to_n_and_no_background(make_case, make_request) -> None:
    ds = pydicom.dcmread(make_case().write(make_request(SegKind.LABELMAP)).path)

    assert [s.SegmentNumber for s in ds.SegmentSequence] == [1, 2, 3, 4, 5, 6]
    assert "PixelPaddingValue" not in ds
    assert (ds.BitsAllocated, ds.PhotometricInterpretation) == (8, "MONOCHROME2")


def test_the_thickness_is_that_of_the_source(make_case, make_request) -> None:
    case = make_case(options=SeriesOptions(overrides={"SliceThickness": "1.25"}))

    ds = pydicom.dcmread(case.write(make_request()).path)

    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (1.25, 2.5)


def test_an_encoding_that_readers_do_not_know_is_no_request(make_request) -> None:
    with pytest.raises(ValueError, match="rle"):
        make_request(SegKind.BINARY, encoding=Encoding.RLE)
    with pytest.raises(ValueError, match="deflated"):
        make_request(SegKind.LABELMAP, encoding=Encoding.DEFLATED)
    with pytest.raises(ValueError, match="revision"):
        make_request(revision=1, predecessor=Predecessor("1", "2", "3"))
