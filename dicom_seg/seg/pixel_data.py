"""The frames' pixels as bytes, one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from dicom_seg.seg import rle
from dicom_seg.seg.frames import FramePlan
from inference.label_map import LabelMap

#: Frames of any size fill whole bytes when packed by eight.
_FRAMES_PER_CHUNK = 8


def binary_length(plan: FramePlan, rows: int, columns: int) -> int:
    """Bytes of the packed bits of all frames, before padding to an even length."""
    return (len(plan.frames) * rows * columns + 7) // 8


def binary_pixels(labels: LabelMap, plan: FramePlan) -> Iterator[bytes]:
    """Bits of all frames, without a gap between frames, first pixel in the lowest bit.

    A frame whose pixels are no multiple of eight ends inside a byte, and the next one begins
    there (PS3.5 8.1.1, D.1).
    """
    _, rows, columns = labels.geometry.shape
    masks = np.empty((_FRAMES_PER_CHUNK, rows, columns), dtype=np.bool_)
    remaining = plan.by_segment()
    while chunk := list(islice(remaining, _FRAMES_PER_CHUNK)):
        for mask, (structure_id, frame) in zip(masks, chunk, strict=False):
            np.equal(labels.labels[frame.z], structure_id, out=mask)
        bits = np.packbits(masks[: len(chunk)].reshape(-1), bitorder="little")
        yield bits.tobytes()


def labelmap_pixels(labels: LabelMap, plan: FramePlan) -> Iterator[npt.NDArray[np.uint8]]:
    """``(y, x)`` segment numbers of each frame; 0 where there is no segment."""
    numbers_of = _segment_numbers(plan)
    for frame in plan.frames:
        yield _translated(labels.labels[frame.z], numbers_of)


def rle_frames(labels: LabelMap, plan: FramePlan) -> Iterator[bytes]:
    """Segment numbers of each frame, RLE Lossless (PS3.5 Annex G)."""
    numbers_of = _segment_numbers(plan)
    for frame in plan.frames:
        plane = labels.labels[frame.z]
        filled = np.flatnonzero(plane.any(axis=1))
        top, bottom = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        pixels = _translated(plane[top:bottom], numbers_of)
        yield rle.encode_frame(pixels, above=top, below=len(plane) - bottom)


def _segment_numbers(plan: FramePlan) -> bytes:
    """Segment number of each structure id, as a table for ``bytes.translate``."""
    numbers = bytearray(256)
    for number, structure_id in enumerate(plan.structure_ids, start=1):
        numbers[structure_id] = number
    return bytes(numbers)


def _translated(pixels: npt.NDArray[np.uint8], numbers_of: bytes) -> npt.NDArray[np.uint8]:
    # Several times as fast as indexing: no cast of every pixel to a machine word.
    numbers = pixels.tobytes().translate(numbers_of)
    return np.frombuffer(numbers, dtype=np.uint8).reshape(pixels.shape)
