"""Files are whole or absent, and within the limits of DICOM."""

from __future__ import annotations

from collections.abc import Iterator

import pydicom
import pytest

from dicom_seg.errors import SegmentationError
from dicom_seg.seg.elements import element
from dicom_seg.seg.file import (
    encapsulated_chunks,
    native_chunks,
    per_frame_chunks,
    write_whole,
)
from inference.reasons import Reason


class Long(bytes):
    """Bytes that say that they are 4 GiB long."""

    def __len__(self) -> int:
        return 1 << 32


def test_pixels_beyond_what_a_length_can_say_are_refused() -> None:
    with pytest.raises(SegmentationError, match="4294967296") as error:
        next(native_chunks(1 << 32, []))
    assert error.value.reason is Reason.SEG_ENCODE


def test_compressed_frames_beyond_what_an_offset_can_say_are_refused() -> None:
    with pytest.raises(SegmentationError) as error:
        next(encapsulated_chunks([Long(), b""]))
    assert error.value.reason is Reason.SEG_ENCODE


def test_functional_groups_beyond_what_a_length_can_say_are_refused() -> None:
    with pytest.raises(SegmentationError) as error:
        next(per_frame_chunks([Long()]))
    assert error.value.reason is Reason.SEG_ENCODE


def test_pixels_are_padded_to_an_even_length() -> None:
    value = b"".join(native_chunks(3, [b"ab", b"c"]))

    assert value == b"\xe0\x7f\x10\x00OB\0\0\x04\0\0\0abc\0"


def test_fragments_are_found_by_their_offsets() -> None:
    value = b"".join(encapsulated_chunks([b"ab", b"cdef", b"gh"]))[12:]

    frames = list(pydicom.encaps.generate_frames(value, number_of_frames=3))
    offsets = pydicom.encaps.parse_basic_offsets(value)
    assert frames == [b"ab", b"cdef", b"gh"]
    assert offsets == [0, 10, 22]


def test_text_is_padded_with_a_space_and_a_uid_with_nul() -> None:
    assert element(0x00100020, "LO", b"abc")[8:] == b"abc "
    assert element(0x00080018, "UI", b"1.2.3")[8:] == b"1.2.3\0"
    assert element(0x00080018, "UI", b"1.23")[8:] == b"1.23"


def test_a_failure_on_the_way_leaves_no_file(tmp_path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(b"before")

    def chunks() -> Iterator[bytes]:
        yield b"half of it"
        raise SegmentationError(Reason.SEG_ENCODE, "here")

    with pytest.raises(SegmentationError):
        write_whole(path, chunks())

    assert [file.name for file in tmp_path.iterdir()] == ["seg.dcm"]
    assert path.read_bytes() == b"before"
