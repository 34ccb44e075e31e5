"""Stored words to Hounsfield units, in place and exact (PS3.5 8.1.1, PS3.3 C.11.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicom_seg.read.slice_table import SliceRow
from inference.volume import PADDING_HU

#: A measured value is never the value of padding.
LOWEST_HU: Final = PADDING_HU + 1
HIGHEST_HU: Final = 32767
_WORD_BITS: Final = 16
#: Rescaled values this close to a whole number were whole before they were written as text.
_WHOLE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class WordFormat:
    """Which bits of a 16-bit word hold the stored value."""

    bits: int
    shift: int  #: unused bits below them
    signed: bool


@dataclass(frozen=True, slots=True)
class PlaneCounts:
    """Voxels of one plane to which something happened."""

    rounded: int  #: rescaled to a fraction of a Hounsfield unit
    clipped: int  #: beyond 16 bit
    padded: int


def to_hounsfield(plane: npt.NDArray[np.int16], word: WordFormat, row: SliceRow) -> PlaneCounts:
    """Turn the words in ``plane`` into Hounsfield units, in place.

    Parameters
    ----------
    plane
        ``(y, x)`` int16, on entry the words of the plane, whatever their meaning.
    word
        How a word holds its stored value.
    row
        Rescale and padding of the plane.
    """
    padded = _padded_words(plane, word, row)
    words = plane if word.signed else plane.view(np.uint16)
    if word.bits < _WORD_BITS:
        # Left until the sign bit is the highest, and back: arithmetic for signed words.
        np.left_shift(words, _WORD_BITS - word.bits - word.shift, out=words)
        np.right_shift(words, _WORD_BITS - word.bits, out=words)
    if padded is None:
        padded = _padded(words, row.padding)
    if padded is not None:
        np.copyto(words, 0, where=padded)
    rounded, clipped = _rescale(plane, words, row.rescale_slope, row.rescale_intercept, padded)
    if padded is None:
        return PlaneCounts(rounded, clipped, 0)
    np.copyto(plane, PADDING_HU, where=padded)
    return PlaneCounts(rounded, clipped, int(np.count_nonzero(padded)))


def _padded_words(
    plane: npt.NDArray[np.int16], word: WordFormat, row: SliceRow
) -> npt.NDArray[np.bool_] | None:
    """Padding whose value needs more than Bits Stored: found in the whole word, or not at all."""
    if row.padding is None:
        return None
    lowest = -(1 << (word.bits - 1)) if word.signed else 0
    if lowest <= row.padding[0] and row.padding[1] < lowest + (1 << word.bits):
        return None
    return _padded(plane if word.signed else plane.view(np.uint16), row.padding)


def _padded(
    words: npt.NDArray[np.integer[Any]], padding: tuple[int, int] | None
) -> npt.NDArray[np.bool_] | None:
    """Where words are padding; None if nowhere."""
    if padding is None:
        return None
    low, high = padding
    found = words == low if low == high else (words >= low) & (words <= high)
    return found if found.any() else None


def _rescale(
    plane: npt.NDArray[np.int16],
    words: npt.NDArray[np.integer[Any]],
    slope: float,
    intercept: float,
    padded: npt.NDArray[np.bool_] | None,
) -> tuple[int, int]:
    """Rescale ``words``, a view of ``plane``; voxels rounded and clipped."""
    if slope == 1.0 and intercept.is_integer() and abs(intercept) <= HIGHEST_HU:
        shift = int(intercept)
        if int(words.min()) + shift >= LOWEST_HU and int(words.max()) + shift <= HIGHEST_HU:
            plane += np.int16(shift)  # modulo 2^16, so right for unsigned words too
            return 0, 0
    measured = True if padded is None else ~padded
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float64 is beyond 16 bit
        exact = words.astype(np.float64)
        exact *= slope
        exact += intercept
        whole = np.rint(exact)
        rounded = int(np.count_nonzero((np.abs(exact - whole) > _WHOLE) & measured))
    outside = (whole < LOWEST_HU) | (whole > HIGHEST_HU)
    clipped = int(np.count_nonzero(outside & measured))
    np.clip(whole, LOWEST_HU, HIGHEST_HU, out=whole)
    np.copyto(plane, whole, casting="unsafe")
    return rounded, clipped
