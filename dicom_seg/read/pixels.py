"""Reading one plane: its bytes out of the file, decoded, in Hounsfield units."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.codecs import decode_frame
from dicom_seg.read.encapsulated import Fragment, frame_fragments, read_frame
from dicom_seg.read.hounsfield import PlaneCounts, WordFormat, to_hounsfield
from dicom_seg.read.slice_table import PixelSource, SliceRow
from dicom_seg.read.transfer_syntax import PixelEncoding, pixel_encoding
from inference.file_stamp import FileStamp
from inference.reasons import Reason

#: No codec needs more for noise than the pixels themselves and a little.
_MOST_EXPANSION: Final = 4
_MOST_OVERHEAD_BYTES: Final = 1 << 20


class PlaneReader:
    """Reads planes of any number of files; safe to use from several threads.

    Parameters
    ----------
    rows
        The planes that will be read. Frames of encapsulated multi-frame files are found once.

    Raises
    ------
    SeriesRefusedError
        As `read`.
    """

    def __init__(self, rows: tuple[SliceRow, ...]) -> None:
        self._frames: dict[Path, list[tuple[Fragment, ...]]] = {}
        for row in rows:
            encapsulated = row.pixels.length is None
            if encapsulated and row.pixels.frames > 1 and row.path not in self._frames:
                with _named(row), row.path.open("rb") as file:
                    _check_unchanged(file, row)
                    self._frames[row.path] = frame_fragments(file, row.pixels)

    def read(self, row: SliceRow, plane: npt.NDArray[np.int16]) -> PlaneCounts:
        """Fill ``plane`` with the Hounsfield units of ``row``.

        Parameters
        ----------
        plane
            ``(y, x)`` int16, C-contiguous.

        Raises
        ------
        SeriesRefusedError
            `corrupt-pixel-data`, `source-missing` or `unreadable-file`, naming the instance.
        """
        with _named(row), row.path.open("rb", buffering=0) as file:
            _check_unchanged(file, row)
            word = self._read_words(file, row, plane)
            _check_unchanged(file, row)
        return to_hounsfield(plane, word, row)

    def _read_words(
        self, file: BinaryIO, row: SliceRow, plane: npt.NDArray[np.int16]
    ) -> WordFormat:
        source = row.pixels
        encoding = pixel_encoding(row.transfer_syntax_uid)
        index = (row.frame_number or 1) - 1
        if encoding is None:
            raise ValueError(f"transfer syntax {row.transfer_syntax_uid}")
        if source.length is not None:
            _read_native(file, row, index, plane)
            if encoding is PixelEncoding.NATIVE_BIG_ENDIAN and source.bits_allocated == 16:
                plane.byteswap(inplace=True)
            if sys.byteorder == "big" and source.bits_allocated == 16:
                plane.byteswap(inplace=True)
            return _word_format(source, source.bits_allocated)
        known = self._frames.get(row.path)
        fragments = (known or frame_fragments(file, source))[index]
        most = plane.nbytes * _MOST_EXPANSION + _MOST_OVERHEAD_BYTES
        frame = decode_frame(
            read_frame(file, fragments, most), encoding, plane.shape, source.bits_allocated
        )
        np.copyto(plane.view(np.uint16), frame.samples, casting="unsafe")
        return _word_format(source, frame.precision)


def _word_format(source: PixelSource, precision: int) -> WordFormat:
    """Where the stored value sits in a word.

    A codestream of fewer bits than Bits Stored has the last word: it holds the value in its
    lowest bits, and its highest one is the sign (PS3.5 8.2.4).
    """
    if precision <= source.bits_stored:
        return WordFormat(precision, 0, source.signed)
    return WordFormat(source.bits_stored, source.high_bit + 1 - source.bits_stored, source.signed)


def _read_native(file: BinaryIO, row: SliceRow, index: int, plane: npt.NDArray[np.int16]) -> None:
    source = row.pixels
    frame_bytes = plane.size * source.bits_allocated // 8
    file.seek(source.offset + index * frame_bytes)
    target: npt.NDArray[np.integer[Any]] = plane
    if source.bits_allocated == 8:
        target = np.empty(plane.shape, np.uint8)
    view = target.data.cast("B")
    done = 0
    while done < frame_bytes:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise ValueError(f"{done} of {frame_bytes} bytes of pixels")
        done += count
    if target is not plane:
        np.copyto(plane, target, casting="unsafe")


def _check_unchanged(file: BinaryIO, row: SliceRow) -> None:
    """The header that led here was read earlier: a file may have been put in its place since."""
    if row.stamp is not None and FileStamp.of(os.fstat(file.fileno())) != row.stamp:
        raise SeriesRefusedError(
            Reason.SOURCE_MISSING,
            f"the file of instance {row.sop_instance_uid} changed after it was examined",
        )


@contextmanager
def _named(row: SliceRow) -> Iterator[None]:
    """Turn whatever goes wrong into one reason that names the instance."""
    frame = f" frame {row.frame_number}" if row.frame_number else ""
    name = f"instance {row.sop_instance_uid}{frame}"
    try:
        yield
    except SeriesRefusedError:
        raise
    except FileNotFoundError as error:
        raise SeriesRefusedError(Reason.SOURCE_MISSING, f"the file of {name}") from error
    except OSError as error:
        detail = f"{error.strerror}: the file of {name}"
        raise SeriesRefusedError(Reason.UNREADABLE_FILE, detail) from error
    except MemoryError as error:
        raise SeriesRefusedError(Reason.OOM_CPU, f"while decoding {name}") from error
    except Exception as error:
        detail = f"{type(error).__name__}: {str(error)[:200]} in {name}"
        raise SeriesRefusedError(Reason.CORRUPT_PIXEL_DATA, detail) from error
