"""Segmentations of this project and of others, read by the independent reader."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code

from dicom_seg.codes import STRUCTURE_CODES
from dicom_seg.segmentation import Encoding, SegKind
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.compare.matching import structure_by_code, structure_by_name
from training.compare.placement import onto_one_grid
from training.compare.seg_side import read_seg_side
from training.compare.side import Side
from training.errors import TrainingError

LIVER = STRUCTURE_BY_NAME["liver"].id
LEFT_KIDNEY = STRUCTURE_BY_NAME["kidney_left"].id


def as_on(path, labels) -> np.ndarray:
    """What a Segmentation shows on the planes of a label map."""
    _, side = onto_one_grid(Side((labels,)), read_seg_side(path), resample=False)
    assert len(side.layers) == 1
    return side.layers[0].labels


@pytest.mark.parametrize("source", ["even", "tilted", "uneven"])
@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        (SegKind.BINARY, Encoding.NATIVE),
        (SegKind.BINARY, Encoding.DEFLATED),
        (SegKind.LABELMAP, Encoding.RLE),
        (SegKind.LABELMAP, Encoding.NATIVE),
    ],
    ids=["binary", "binary-deflated", "labelmap-rle", "labelmap"],
)
def test_what_the_service_writes_is_read_voxel_by_voxel(make_scan, source, kind, encoding):
    scan = make_scan(source)

    path = scan.write("seg.dcm", kind, encoding)

    np.testing.assert_array_equal(as_on(path, scan.labels), scan.labels.labels)
    assert read_seg_side(path).findings == ()


def test_planes_that_are_not_stored_hold_nothing(make_scan):
    scan = make_scan()

    side = read_seg_side(scan.write("seg.dcm"))

    assert side.sparse
    assert side.geometry.shape[0] == 7  # from the first to the last plane with a structure
    assert side.layers[0].volumes_ml() == pytest.approx(scan.labels.volumes_ml())


def test_thick_slices_that_overlap_are_no_steps_between_planes(make_scan):
    path = make_scan().write("seg.dcm")
    whole = read_seg_side(path)
    ds = pydicom.dcmread(path)
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.SpacingBetweenSlices
    measures.SliceThickness = 1.25  # half of the step: not a plane more
    ds.save_as(path)
    thin = read_seg_side(path)
    measures.SliceThickness = 5.0  # twice the step: not a plane less
    ds.save_as(path)

    for side in (thin, read_seg_side(path)):
        assert side.geometry.shape == whole.geometry.shape
        np.testing.assert_array_equal(side.layers[0].labels, whole.layers[0].labels)


def test_frames_are_placed_by_position_whatever_their_order(make_scan):
    scan = make_scan()
    path = scan.write("seg.dcm", SegKind.LABELMAP, Encoding.NATIVE)
    ds = pydicom.dcmread(path)
    ds.PerFrameFunctionalGroupsSequence = list(reversed(ds.PerFrameFunctionalGroupsSequence))
    ds.PixelData = ds.pixel_array[::-1].tobytes()
    ds.save_as(path)

    np.testing.assert_array_equal(as_on(path, scan.labels), scan.labels.labels)


def test_overlapping_segments_keep_all_their_voxels(make_scan):
    scan = make_scan()
    path = scan.write("seg.dcm", SegKind.BINARY, Encoding.NATIVE)
    ds = pydicom.dcmread(path)
    frames = [int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
              for g in ds.PerFrameFunctionalGroupsSequence]  # fmt: skip
    ds.PixelData = b"\xff" * len(ds.PixelData)
    ds.save_as(path)

    side = read_seg_side(path)

    assert len(side.layers) == 2
    whole = ds.Rows * ds.Columns
    by_id = {}
    for layer in side.layers:
        counts = layer.slice_counts().sum(axis=0)
        assert not by_id.keys() & set(layer.present())
        by_id |= {i: counts[i] for i in layer.present()}
    numbered = {int(s.SegmentNumber): s.SegmentLabel for s in ds.SegmentSequence}
    assert by_id == {
        STRUCTURE_BY_NAME[name].id: whole * frames.count(number)
        for number, name in numbered.items()
    }


def test_every_code_that_the_service_writes_is_known():
    for code in STRUCTURE_CODES:
        side = None if code.modifier is None else Code(code.modifier.value, "SCT", "")
        assert structure_by_code(Code(code.type.value, "SCT", ""), side) == code.structure_id


def test_old_codes_and_those_of_other_tools_are_known():
    left = Code("G-A101", "SRT", "Left")

    assert structure_by_code(Code("T-62000", "SRT", "Liver"), None) == LIVER
    assert structure_by_code(Code("T-71000", "SRT", "Kidney"), left) == LEFT_KIDNEY
    assert structure_by_code(Code("64033007", "SCT", "Kidney"), None) is None  # which one?
    assert structure_by_code(Code("64033007", "99LOCAL", "Kidney"), left) is None
    gluteus = structure_by_code(Code("181674001", "SCT", ""), Code("7771000", "SCT", "Left"))
    assert gluteus == STRUCTURE_BY_NAME["gluteus_maximus_left"].id


def test_names_are_known_however_they_are_spelled():
    assert structure_by_name("Left Kidney") == LEFT_KIDNEY
    assert structure_by_name("kidney-left") == LEFT_KIDNEY
    assert structure_by_name("heart") is None
    for each in STRUCTURES:
        assert structure_by_name(each.name) == each.id


def change(path, **fields):
    ds = pydicom.dcmread(path)
    for item in ds.SegmentSequence:
        for keyword, value in fields.items():
            setattr(item.SegmentedPropertyTypeCodeSequence[0], keyword, value)
    ds.save_as(path)


def test_a_segment_with_a_strange_code_is_matched_by_its_label(make_scan):
    scan = make_scan()
    path = scan.write("seg.dcm")
    change(path, CodeValue="L-1", CodingSchemeDesignator="99LOCAL")

    np.testing.assert_array_equal(as_on(path, scan.labels), scan.labels.labels)


def test_a_segment_that_is_no_structure_is_left_out_and_named(make_scan):
    scan = make_scan()
    path = scan.write("seg.dcm")
    ds = pydicom.dcmread(path)
    spoiled = next(s for s in ds.SegmentSequence if s.SegmentLabel == "liver")
    spoiled.SegmentLabel = "tumour"
    spoiled.SegmentedPropertyTypeCodeSequence[0].CodeValue = "108369006"
    ds.save_as(path)

    side = read_seg_side(path)

    assert LIVER not in side.layers[0].present()
    (finding,) = side.findings
    assert finding.reason is Reason.UNKNOWN_LABEL
    assert "tumour" in finding.detail


def test_two_segments_of_one_structure_are_taken_together_and_named(make_scan):
    scan = make_scan()
    path = scan.write("seg.dcm")
    change(path, CodeValue="10200004", SegmentedPropertyTypeModifierCodeSequence=[])

    side = read_seg_side(path)

    assert side.layers[0].present() == (LIVER,)
    reasons = [Reason.LABEL_DIFFERS, Reason.DUPLICATE_SEGMENT]
    assert [f.reason for f in side.findings] == reasons


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda ds: setattr(ds, "SegmentationType", "FRACTIONAL"), Reason.UNREADABLE_FILE),
        (lambda ds: delattr(ds, "SegmentSequence"), Reason.UNREADABLE_FILE),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:40]), Reason.CORRUPT_PIXEL_DATA),
        (
            lambda ds: setattr(
                ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0],
                "ImagePositionPatient", ["1e400", "0", "0"],
            ),
            Reason.MISSING_GEOMETRY,
        ),
    ],
    ids=["fractional", "no segments", "cut", "nowhere"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(make_scan, spoil, reason):
    path = make_scan().write("seg.dcm", SegKind.BINARY, Encoding.NATIVE)
    ds = pydicom.dcmread(path)
    with pytest.MonkeyPatch.context() as lenient:
        lenient.setattr(pydicom.config.settings, "_writing_validation_mode", 0)
        spoil(ds)
        ds.save_as(path)

    with pytest.raises(TrainingError) as refusal:
        read_seg_side(path)

    assert refusal.value.reason is reason
    assert path.name in refusal.value.detail


def test_a_value_without_a_segment_is_refused(make_scan):
    path = make_scan().write("seg.dcm", SegKind.LABELMAP, Encoding.NATIVE)
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array.copy()
    pixels[0, 0, 0] = 77
    ds.PixelData = pixels.tobytes()
    ds.save_as(path)

    with pytest.raises(TrainingError) as refusal:
        read_seg_side(path)

    assert refusal.value.reason is Reason.UNKNOWN_LABEL


@pytest.mark.shared
def test_segmentations_of_dcmqi_are_read_as_highdicom_reads_them(shared_data):
    import highdicom

    for name in ("sparse-labelmap-noppv.dcm", "sparse-labelmap-ppv5.dcm", "liver.dcm"):
        path = shared_data / "dcmqi" / name
        side = read_seg_side(path)
        theirs = highdicom.seg.segread(path).get_volume(combine_segments=True)
        ours = (side.layers[0].labels == LIVER).astype(int)
        # highdicom stacks against the normal of the planes
        np.testing.assert_array_equal(ours, theirs.array[::-1])
        assert ours.any()


@pytest.mark.shared
def test_segments_of_other_kinds_are_all_left_out(shared_data):
    side = read_seg_side(shared_data / "dcmqi/partial_overlaps.dcm")

    assert side.layers[0].present() == ()
    assert side.findings[0].detail.count("(") == 5


def test_a_segment_whose_code_and_label_disagree_is_named(make_scan):
    path = make_scan().write("seg.dcm")
    ds = pydicom.dcmread(path)
    left = next(s for s in ds.SegmentSequence if s.SegmentLabel == "kidney_left")
    left.SegmentLabel = "kidney_right"
    ds.save_as(path)

    findings = read_seg_side(path).findings

    assert [f.reason for f in findings] == [Reason.LABEL_DIFFERS]
    assert "kidney_right" in findings[0].detail
    assert "kidney_left by its code" in findings[0].detail
