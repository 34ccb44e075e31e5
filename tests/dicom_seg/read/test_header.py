"""Headers of files that may hold anything: a header or one of a closed set of reasons."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import Outcome, SeriesRules
from dicom_seg.read.header import decoded, quiet_pydicom, read_header, scan_header
from dicom_seg.read.series import examine_series
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from inference.volume import Volume

CLOSED_SET = {
    Reason.NO_DICOM,
    Reason.UNREADABLE_FILE,
    Reason.UNSUPPORTED_SYNTAX,
    Reason.TOO_LARGE,
}
UNDEFINED = 0xFFFFFFFF


@pytest.fixture
def instance(tmp_path):
    """``instance(**options)``: one CT slice of 8 x 10 pixels in a file of its own."""

    def write(**options):
        folder = tmp_path / f"ct{len(list(tmp_path.iterdir()))}"
        volume = Volume(np.full((1, 8, 10), 40, np.int16), stack((1, 8, 10), (2.0, 1.0, 1.0)))
        (path,) = write_ct_series(volume, folder, SeriesOptions(**options))
        return path

    return write


def element(tag, vr, value, length=None):
    """One explicit VR little endian element."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, size) + value
    return head + struct.pack("<H", size) + value


def part10(dataset, syntax=b"1.2.840.10008.1.2.1\0", preamble=b"\0" * 128):
    """A file with file meta information of nothing but the transfer syntax."""
    return preamble + b"DICM" + element(0x00020010, b"UI", syntax) + dataset


def reason_of(path):
    """None if the header could be read."""
    try:
        read_header(path)
    except SeriesRefusedError as error:
        return error.reason
    return None


@pytest.mark.parametrize("options", [{}, {"transfer_syntax_uid": ImplicitVRLittleEndian},
                                     {"transfer_syntax_uid": ExplicitVRBigEndian},
                                     {"kind": ObjectKind.ENHANCED_CT}])  # fmt: skip
def test_the_header_ends_where_the_pixels_begin(instance, options):
    path = instance(**options)
    whole = dcmread(path)

    header = scan_header(path)

    assert header.transfer_syntax_uid == whole.file_meta.TransferSyntaxUID
    assert set(header.dataset.keys()) == set(whole.keys()) - {whole["PixelData"].tag}
    end = header.pixels.offset + header.pixels.length
    assert path.read_bytes()[header.pixels.offset : end] == whole.PixelData
    assert read_header(path).PatientID == whole.PatientID


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_files_without_preamble_and_meta_are_read(instance, syntax):
    uid = {"implicit": ImplicitVRLittleEndian, "big endian": ExplicitVRBigEndian}.get(syntax)
    path = instance(**({"transfer_syntax_uid": uid} if uid else {}))
    header = scan_header(path)
    bare = path.with_name("bare")
    bare.write_bytes(path.read_bytes()[header.dataset_offset :])

    found = scan_header(bare)

    assert found.transfer_syntax_uid == header.transfer_syntax_uid
    assert found.dataset.SOPInstanceUID == header.dataset.SOPInstanceUID


def test_a_program_in_the_preamble_changes_nothing(instance):
    path = instance()
    content = path.read_bytes()
    path.write_bytes(b"MZ\x90\0" + content[4:])

    assert read_header(path).SOPInstanceUID == dcmread(path).SOPInstanceUID


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"not an image", Reason.NO_DICOM),
        ("empty", b"", Reason.NO_DICOM),
        ("empty.dcm", b"", Reason.UNREADABLE_FILE),
        ("slice.IMA", b"not an image", Reason.UNREADABLE_FILE),
        ("magic only", b"\0" * 128 + b"DICM", Reason.UNREADABLE_FILE),
        ("short", part10(element(0x00080018, b"UI", b"1.2", length=64)), Reason.UNREADABLE_FILE),
        ("cut in a sequence", part10(element(0x00081140, b"SQ", b"\xfe\xff", UNDEFINED)),
         Reason.UNREADABLE_FILE),
        ("mpeg", part10(b"", b"1.2.840.10008.1.2.4.102\0"), Reason.UNSUPPORTED_SYNTAX),
        ("private", part10(b"", b"1.2.3.4\0"), Reason.UNSUPPORTED_SYNTAX),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_readable_header_has_its_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)

    assert reason_of(path) is reason


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")

    assert reason_of(tmp_path / "pipe.dcm") is Reason.NO_DICOM
    assert reason_of(tmp_path) is Reason.NO_DICOM
    assert reason_of(tmp_path / "absent.dcm") is Reason.UNREADABLE_FILE


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = element(0x7FE00010, b"OW", b"", length=200 << 20)
    bomb = packer.compress(zeros) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200))
    path = tmp_path / "bomb.dcm"
    path.write_bytes(part10(bomb + packer.flush(), b"1.2.840.10008.1.2.1.99"))
    tracemalloc.start()
    try:
        assert reason_of(path) is Reason.UNSUPPORTED_SYNTAX
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 1 << 20


@pytest.mark.parametrize("depth", [10, 300, 3000])
@pytest.mark.parametrize("defined", [False, True], ids=["undefined length", "defined length"])
def test_nested_sequences_end_in_a_header_or_a_reason(tmp_path, depth, defined):
    nested = b""
    for _ in range(depth):
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(nested)) + nested
            nested = element(0x00081140, b"SQ", item)
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + nested
            item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
            nested = element(0x00081140, b"SQ", item, UNDEFINED)
    path = tmp_path / "nested.dcm"
    path.write_bytes(part10(element(0x00080018, b"UI", b"1.2.3\0") + nested))

    if reason_of(path) is None:
        header = read_header(path)
        assert header.SOPInstanceUID == "1.2.3"
        assert depth_of(header) <= 40  # a copy of it cannot fail
    else:
        assert reason_of(path) is Reason.UNREADABLE_FILE
        assert depth > 100


def depth_of(dataset: Dataset) -> int:
    below = [depth_of(item) for one in dataset if one.VR == "SQ" for item in one.value]
    return 1 + max(below, default=0)


def test_a_million_items_are_too_many(tmp_path):
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    path = tmp_path / "items.dcm"
    path.write_bytes(part10(element(0x00081140, b"SQ", items)))

    assert reason_of(path) is Reason.TOO_LARGE


@pytest.mark.parametrize("size", [100 << 10, 3 << 20])
def test_a_long_private_value_is_read_past(instance, size):
    path = instance()
    header = scan_header(path)
    content = path.read_bytes()
    private = element(0x00091010, b"OB", bytes(size))
    at = content.index(element(0x00100010, b"PN", b"")[:6])
    path.write_bytes(content[:at] + private + content[at:])

    found = scan_header(path)

    assert found.pixels.offset == header.pixels.offset + len(private)
    assert read_header(path).SOPInstanceUID == header.dataset.SOPInstanceUID


def test_a_header_without_end_is_given_up(tmp_path):
    path = tmp_path / "endless.dcm"
    path.write_bytes(part10(element(0x00091010, b"OB", bytes(17 << 20)) + bytes(8)))

    assert reason_of(path) is Reason.TOO_LARGE


def test_values_that_cannot_be_read_are_dropped_without_a_warning(tmp_path, recwarn):
    dataset = element(0x00080018, b"UI", b"1.2.3\0") + element(0x00101030, b"DS", b"DOE^JOHN")
    dataset += element(0x00280010, b"US", b"\1\2\3") + element(0x00280011, b"XX", b"\1\2")
    path = tmp_path / "values.dcm"
    path.write_bytes(part10(dataset))

    header = read_header(path)

    assert header.SOPInstanceUID == "1.2.3"
    assert "Rows" not in header
    assert "Columns" not in header
    assert len(recwarn) == 0


def test_texts_stay_as_they_are_stored(instance):
    path = instance(overrides={"SpecificCharacterSet": "ISO_IR 192", "StudyDescription": "SchXdel"})
    path.write_bytes(path.read_bytes().replace(b"SchXdel", b"Sch\xe4del"))  # no UTF-8

    header = read_header(path)
    with quiet_pydicom():
        text = decoded(header, "StudyDescription")

    assert text == "Sch\ufffddel"
    assert header.get_item("StudyDescription").value.strip() == b"Sch\xe4del"


def mutants(content: bytes, rng: np.random.Generator, count: int):
    """Flipped, overwritten, cut out, repeated and truncated bytes, most of them in the header."""
    for _ in range(count):
        mutant = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(0, len(mutant)))
            length = int(rng.integers(1, 9))
            match rng.integers(0, 6):
                case 0:
                    mutant[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    mutant[at : at + length] = rng.bytes(length)
                case 2:
                    mutant[at : at + length] = b"\xff" * length
                case 3:
                    del mutant[at : at + length]
                case 4:
                    mutant[at:at] = mutant[at : at + 4 * length]
                case _:
                    if rng.random() < 0.2:
                        del mutant[at:]
        yield bytes(mutant)


@pytest.mark.parametrize("kind", [ObjectKind.CT, ObjectKind.LEGACY_CONVERTED_CT])
def test_mutated_files_give_codes_only(instance, kind, rng, tmp_path, recwarn):
    content = instance(kind=kind).read_bytes()
    path = tmp_path / "mutant.dcm"
    reasons = set()
    for mutant in mutants(content, rng, 600):
        path.write_bytes(mutant)
        assert reason_of(path) in {None, *CLOSED_SET}
        found = examine_series([path], SeriesRules(min_slices=1))
        assert (found.reason is None) == (found.outcome is Outcome.PROCESS)
        reasons.add(found.reason)

    assert len(reasons) > 6  # the mutants do reach the different ways to fail
    assert len(recwarn) == 0


def test_warnings_are_as_before_once_reading_is_over(instance):
    import warnings

    before = list(warnings.filters)
    with quiet_pydicom():
        scan_header(instance())

    assert warnings.filters == before
