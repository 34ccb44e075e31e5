"""Fragments of encapsulated pixel data, and the frames that they make."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom.encaps import encapsulate, encapsulate_extended

from dicom_seg.read.encapsulated import EncapsulationError, frame_fragments, read_frame
from dicom_seg.read.slice_table import PixelSource

DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
JPEG = b"\xff\xd8\xff\xe0"
HEAD = b"head of the file"


def item(value):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def frames_of(value, frames):
    file = BytesIO(HEAD + value)
    source = PixelSource(len(HEAD), None, frames, 16, 16, 15, signed=False)
    return [read_frame(file, found, 1 << 20) for found in frame_fragments(file, source)]


def test_one_fragment_a_frame():
    frames = [bytes([i]) * 10 for i in range(5)]

    assert frames_of(encapsulate(frames), 5) == frames
    assert frames_of(encapsulate(frames, has_bot=False), 5) == frames
    assert frames_of(encapsulate_extended(frames)[0], 5) == frames


def test_several_fragments_of_one_frame_are_joined():
    assert frames_of(item(b"") + item(b"ab") + item(b"cdef") + DELIMITER, 1) == [b"abcdef"]


def test_the_offset_table_says_where_frames_start():
    frames = [b"abcdefgh", b"ijklmnop", b"qrstuvwx"]

    assert frames_of(encapsulate(frames, fragments_per_frame=2), 3) == frames


def test_without_a_table_frames_start_like_images():
    value = item(b"") + item(JPEG + b"1") + item(b"23") + item(JPEG + b"4") + DELIMITER

    assert frames_of(value, 2) == [JPEG + b"123", JPEG + b"4"]


def test_a_table_that_points_nowhere_is_not_believed():
    table = item(struct.pack("<II", 0, 5))
    value = table + item(JPEG + b"1") + item(b"23") + item(JPEG + b"4") + DELIMITER

    assert frames_of(value, 2) == [JPEG + b"123", JPEG + b"4"]


def test_a_missing_delimiter_is_forgiven():
    assert frames_of(item(b"") + item(b"abcd"), 1) == [b"abcd"]


@pytest.mark.parametrize(
    ("value", "frames"),
    [
        (b"", 1),
        (DELIMITER, 1),
        (item(b"") + DELIMITER, 1),
        (item(b"") + b"\xfe\xff\x00", 1),
        (item(b"") + item(b"abcd")[:-2], 1),
        (item(b"") + item(b"ab") + item(b"cd") + DELIMITER, 3),
        (item(b"") + item(b"ab") + item(b"cd") + item(b"ef") + DELIMITER, 2),
        (item(b"") + b"native pixels without items", 1),
        (item(b"") + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF), 1),
        (item(b"") + item(b"") * 10000 + DELIMITER, 1),
        (item(b"") + item(bytes(2 << 20)) + DELIMITER, 1),
    ],
    ids=[
        "nothing", "no table", "no fragment", "cut between items", "cut in a fragment",
        "too few fragments", "no telling the frames apart", "no items", "endless item",
        "too many fragments", "too long a frame",
    ],
)  # fmt: skip
def test_what_makes_no_frames_is_refused(value, frames):
    with pytest.raises(EncapsulationError):
        frames_of(value, frames)
