"""Verification passes what was meant, and stops at what it cannot read or miss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicom_seg.errors import VerificationError
from dicom_seg.segmentation import Encoding, Predecessor, SegKind
from dicom_seg.verification import verify_segmentation
from inference.label_map import LabelMap

ENCODINGS = (
    (SegKind.BINARY, Encoding.NATIVE),
    (SegKind.BINARY, Encoding.DEFLATED),
    (SegKind.LABELMAP, Encoding.RLE),
    (SegKind.LABELMAP, Encoding.NATIVE),
)


@pytest.mark.parametrize("source", ["even", "tilted", "uneven", "multiframe"])
@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_what_was_written_passes(make_case, make_request, source, kind, encoding) -> None:
    case = make_case(source)
    request = make_request(kind, encoding=encoding, truncated=frozenset(case.labels.present()[:1]))

    verify_segmentation(case.write(request).path, case.labels, case.plan, request)


@pytest.mark.parametrize("kind", SegKind)
def test_one_plane_is_a_stack(make_case, make_request, kind) -> None:
    case = make_case()
    table = replace(case.plan.table, rows=case.plan.table.rows[4:5])
    labels = LabelMap(case.labels.labels[4:5], table.geometry())
    case = replace(case, plan=replace(case.plan, table=table), labels=labels)

    written = case.write(make_request(kind))

    verify_segmentation(written.path, labels, case.plan, make_request(kind))


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_an_object_that_another_writer_stored_again_passes(
    make_case, make_request, kind, encoding, undefined
) -> None:
    """Sequences of undefined length, too: an archive may write them so."""
    case = make_case()
    request = make_request(kind, encoding=encoding)
    path = case.write(request).path

    ds = pydicom.dcmread(path)
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    ds.save_as(path)

    verify_segmentation(path, case.labels, case.plan, request)


def test_the_wrong_frame_of_a_multi_frame_source_is_seen(make_case, make_request) -> None:
    case = make_case("multiframe")
    path = case.write(make_request()).path
    ds = pydicom.dcmread(path)
    derivation = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    derivation.SourceImageSequence[0].ReferencedFrameNumber += 1
    ds.save_as(path)

    with pytest.raises(VerificationError, match="frame 1 refers to another slice"):
        verify_segmentation(path, case.labels, case.plan, make_request())


def test_one_slice_spacing_for_uneven_planes_is_a_lie(make_case, make_request) -> None:
    case = make_case("uneven")
    path = case.write(make_request()).path
    ds = pydicom.dcmread(path)
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = 2.5
    ds.save_as(path)

    with pytest.raises(VerificationError, match="SpacingBetweenSlices"):
        verify_segmentation(path, case.labels, case.plan, make_request())


def test_a_demonstration_that_does_not_say_so_may_not_leave(
    make_case, make_request, algorithm
) -> None:
    case = make_case()
    request = make_request(algorithm=replace(algorithm, demonstration=True))
    path = case.write(request).path
    ds = pydicom.dcmread(path)
    ds.ContentDescription = "Organs"
    ds.save_as(path)

    with pytest.raises(VerificationError, match="ContentDescription"):
        verify_segmentation(path, case.labels, case.plan, request)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": SegKind.LABELMAP},
        {"encoding": Encoding.DEFLATED},
        {"revision": 2, "predecessor": Predecessor("1.2", "2.25.1", "2.25.2")},
        {"truncated": frozenset({2})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_object_is_not_what_another_request_meant(make_case, make_request, change) -> None:
    case = make_case()
    path = case.write(make_request()).path

    with pytest.raises(VerificationError):
        verify_segmentation(path, case.labels, case.plan, make_request(**change))


def test_labels_that_changed_since_are_seen(make_case, make_request) -> None:
    case = make_case()
    path = case.write(make_request()).path
    labels = case.labels.labels.copy()
    labels[6, 6, 6] = 0 if labels[6, 6, 6] else case.labels.present()[0]

    with pytest.raises(VerificationError, match=r"differ|no frame|no voxel"):
        verify_segmentation(path, LabelMap(labels, case.labels.geometry), case.plan, make_request())


@pytest.mark.parametrize("encoding", [Encoding.NATIVE, Encoding.DEFLATED])
@pytest.mark.parametrize("keep", [0, 100, 140, 400, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(make_case, make_request, keep, encoding) -> None:
    case = make_case()
    request = make_request(encoding=encoding)
    path = case.write(request).path
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])

    with pytest.raises(VerificationError):
        verify_segmentation(path, case.labels, case.plan, request)


def test_no_byte_can_change_into_another_exception(make_case, make_request, rng) -> None:
    case = make_case()
    outcomes = {True: 0, False: 0}
    for kind, encoding in ENCODINGS:
        request = make_request(kind, encoding=encoding)
        path = case.write(request, f"{kind}-{encoding}.dcm").path
        whole = path.read_bytes()
        for at in rng.integers(132, len(whole), 40):
            changed = bytearray(whole)
            changed[at] ^= 0xFF
            path.write_bytes(changed)
            try:
                verify_segmentation(path, case.labels, case.plan, request)
                outcomes[True] += 1  # a byte that nothing here is about
            except VerificationError:
                outcomes[False] += 1
    assert outcomes[False] > 40


def test_a_file_that_is_not_there_is_refused(make_case, make_request, tmp_path: Path) -> None:
    case = make_case()

    with pytest.raises(VerificationError, match="not readable"):
        verify_segmentation(tmp_path / "none.dcm", case.labels, case.plan, make_request())


def test_a_syntax_that_we_do_not_write_is_refused(make_case, make_request) -> None:
    case = make_case()
    path = case.write(make_request()).path
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    ds.save_as(path, implicit_vr=True)

    with pytest.raises(VerificationError, match="TransferSyntaxUID"):
        verify_segmentation(path, case.labels, case.plan, make_request())
