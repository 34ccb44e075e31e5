"""Frames: which there are, their bits, their functional groups; against highdicom's own."""

from __future__ import annotations

import io
from dataclasses import replace

import highdicom
import imagecodecs
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from dicom_seg.errors import SegmentationError
from dicom_seg.seg import rle
from dicom_seg.seg.frames import plan_frames
from dicom_seg.seg.pixel_data import binary_length, binary_pixels
from dicom_seg.segmentation import Encoding, SegKind, write_segmentation
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason


def build_with_highdicom(case, kind: SegKind) -> pydicom.Dataset:
    """The same labels, the straightforward way."""
    datasets = [pydicom.dcmread(row.path) for row in case.plan.table.rows]
    if case.plan.table.rows[0].frame_number is not None:
        datasets = datasets[:1]
    present = case.labels.present()
    number = np.zeros(256, dtype=np.uint8)
    number[list(present)] = np.arange(1, len(present) + 1)
    pixels = number[case.labels.labels]
    if case.plan.table.rows[0].frame_number is not None:
        order = [row.frame_number - 1 for row in case.plan.table.rows]
        pixels = pixels[np.argsort(order)]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "a", codes.DCM.ArtificialIntelligence, "1"
    )
    segments = [
        SegmentDescription(n, "s", codes.SCT.Tissue, codes.SCT.Liver, "AUTOMATIC", algorithm)
        for n in range(1, len(present) + 1)
    ]
    seg = highdicom.seg.Segmentation(
        datasets, pixels, kind.name, segments, "1.2.3", 1, "1.2.4", 1, "m", "n", "1", "s",
        omit_empty_frames=kind is SegKind.BINARY,
    )  # fmt: skip
    buffer = io.BytesIO()
    seg.save_as(buffer)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


@pytest.mark.parametrize("source", ["even", "tilted", "uneven", "multiframe"])
@pytest.mark.parametrize("kind", SegKind)
def test_frames_are_those_of_highdicom_in_its_order(make_case, make_request, source, kind) -> None:
    case = make_case(source)
    theirs = build_with_highdicom(case, kind)

    ours = pydicom.dcmread(case.write(make_request(kind, encoding=Encoding.NATIVE)).path)

    assert ours.NumberOfFrames == theirs.NumberOfFrames
    bits = ours.NumberOfFrames * ours.Rows * ours.Columns * ours.BitsAllocated
    assert ours.PixelData[: bits // 8] == theirs.PixelData[: bits // 8]  # they pad with "0"
    np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)
    assert ours.get("DimensionOrganizationType") == theirs.get("DimensionOrganizationType")
    measures = ours.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if source == "tilted":  # theirs has none where the stack is sheared; it is true of it
        spacing_mm = case.labels.geometry.spacing_mm[0]
        assert measures.SpacingBetweenSlices == pytest.approx(spacing_mm, abs=1e-9)
        del measures.SpacingBetweenSlices
    assert ("SpacingBetweenSlices" in measures) == (source in ("even", "multiframe"))
    assert ours.SharedFunctionalGroupsSequence == theirs.SharedFunctionalGroupsSequence
    for mine, other in zip(
        ours.PerFrameFunctionalGroupsSequence, theirs.PerFrameFunctionalGroupsSequence, strict=True
    ):
        assert mine == other
    pointers = [
        [(i.DimensionIndexPointer, i.FunctionalGroupPointer) for i in ds.DimensionIndexSequence]
        for ds in (ours, theirs)
    ]
    assert pointers[0] == pointers[1]
    for keyword in (
        "SOPClassUID", "ImageType", "BitsAllocated", "BitsStored", "HighBit", "SegmentsOverlap",
        "PixelRepresentation", "PhotometricInterpretation", "SegmentationType", "SamplesPerPixel",
        "FrameOfReferenceUID", "StudyInstanceUID", "PatientID", "LossyImageCompression",
    ):  # fmt: skip
        assert ours.get(keyword) == theirs.get(keyword), keyword


def labels_of(array: np.ndarray) -> LabelMap:
    return LabelMap(array, Geometry.from_affine(np.eye(4), array.shape))


@pytest.mark.parametrize("shape", [(9, 1, 1), (17, 3, 5), (8, 7, 1), (20, 8, 8), (3, 13, 11)])
def test_bits_follow_each_other_without_a_gap_between_frames(rng, shape) -> None:
    array = rng.integers(0, 4, shape, dtype=np.uint8)
    labels = labels_of(array)
    frames = plan_frames(labels, SegKind.BINARY)

    packed = b"".join(binary_pixels(labels, frames))

    assert len(packed) == binary_length(frames, *shape[1:])
    expected = "".join(
        "".join("01"[int(value == structure_id)] for value in array[frame.z].ravel())
        for structure_id, frame in frames.by_segment()
    )
    found = "".join(f"{byte:08b}"[::-1] for byte in packed)
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {"0"}


def test_binary_has_a_frame_for_what_is_there_and_labelmap_for_every_plane(rng) -> None:
    array = np.zeros((6, 4, 4), dtype=np.uint8)
    array[1, 0, 0] = 7
    array[4, 1, 1] = 7
    array[4, 2, 2] = 3

    binary = plan_frames(labels_of(array), SegKind.BINARY)
    labelmap = plan_frames(labels_of(array), SegKind.LABELMAP)

    assert binary.structure_ids == labelmap.structure_ids == (3, 7)
    assert [(f.segment, f.z, f.position) for f in binary.frames] == [
        (1, 4, 1),
        (2, 4, 1),
        (2, 1, 2),
    ]
    assert [(f.z, f.position) for f in labelmap.frames] == [
        (5, 1), (4, 2), (3, 3), (2, 4), (1, 5), (0, 6),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", SegKind)
def test_nothing_found_is_no_object(kind) -> None:
    with pytest.raises(SegmentationError) as error:
        plan_frames(labels_of(np.zeros((2, 2, 2), np.uint8)), kind)
    assert error.value.reason is Reason.EMPTY_RESULT


@pytest.mark.parametrize("kind", SegKind)
def test_an_unknown_label_is_refused_by_number(kind) -> None:
    with pytest.raises(SegmentationError, match="105") as error:
        plan_frames(labels_of(np.full((2, 2, 2), 105, np.uint8)), kind)
    assert error.value.reason is Reason.SEG_ENCODE


@pytest.mark.parametrize("kind", SegKind)
def test_all_structures_fit_into_one_object(make_case, make_request, kind) -> None:
    case = make_case()
    array = np.zeros(case.labels.labels.shape, np.uint8)
    array.reshape(-1)[:104] = np.arange(1, 105)

    written = replace(case, labels=LabelMap(array, case.labels.geometry)).write(make_request(kind))

    assert written.segment_ids == tuple(range(1, 105))
    assert len(pydicom.dcmread(written.path).SegmentSequence) == 104


@pytest.mark.parametrize("columns", [1, 2, 127, 128, 129, 300])
def test_rle_frames_are_decoded_by_others(rng, columns) -> None:
    runs = np.repeat(rng.integers(0, 5, (7, columns), dtype=np.uint8), 1, axis=1)
    runs[2:4] = 9
    runs[5, : columns // 2] = 3

    encoded = rle.encode_frame(runs)

    assert len(encoded) % 2 == 0
    decoded = imagecodecs.dicomrle_decode(encoded, dtype=np.uint8)
    np.testing.assert_array_equal(np.frombuffer(decoded, np.uint8).reshape(runs.shape), runs)
    decoder = pydicom.pixels.get_decoder(RLELossless)
    by_pydicom, _ = decoder.as_array(
        pydicom.encaps.encapsulate([encoded]),
        rows=runs.shape[0], columns=columns, number_of_frames=1, samples_per_pixel=1,
        bits_allocated=8, bits_stored=8, pixel_representation=0, pixel_keyword="PixelData",
        photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
    np.testing.assert_array_equal(by_pydicom, runs)


def test_no_run_of_an_rle_frame_crosses_a_row() -> None:
    """PS3.5 G.3.1."""
    pixels = np.full((3, 200), 7, dtype=np.uint8)
    header, rows = 64, [rle.encode_frame(pixels[i : i + 1])[64:68] for i in range(3)]

    assert rle.encode_frame(pixels)[header:] == b"".join(rows)


def test_labels_of_another_stack_are_refused(make_case, make_request, tmp_path) -> None:
    case = make_case()
    moved = replace(case.labels.geometry, origins_mm=case.labels.geometry.origins_mm + 0.5)

    with pytest.raises(SegmentationError) as error:
        write_segmentation(
            LabelMap(case.labels.labels, moved), case.plan, make_request(), tmp_path / "x.dcm"
        )
    assert error.value.reason is Reason.SEG_ENCODE
    assert list(tmp_path.glob("x.dcm*")) == []
