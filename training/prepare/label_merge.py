"""Many masks become one label map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_WORD_BYTES = 8
#: Words that are looked at together: most of a mask is 0, and a maximum runs at memory speed.
_BLOCK = 256


class NotBinaryError(ValueError):
    """A mask holds other values than 0 and 1; the text quotes the lowest and the highest."""


class LabelMerge:
    """Takes masks one after the other; where they overlap the later one has the voxels.

    Masks come in the order of the class list, so this is a fixed rule, and that of the
    published merged labels. What is looked at beyond one scan of a mask is in proportion to
    its foreground.

    Parameters
    ----------
    voxel_count
        Of the grid.
    """

    def __init__(self, voxel_count: int) -> None:
        # whole words, so that eight voxels can be moved at once
        self._words = np.zeros(-(-voxel_count // _WORD_BYTES), dtype=np.uint64)
        self._count = voxel_count

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Flat structure ids, in the order of the masks' voxels."""
        return self._words.view(np.uint8)[: self._count]

    def add(self, structure_id: int, mask: npt.NDArray[Any]) -> dict[int, int]:
        """Give a mask's voxels to a structure.

        Parameters
        ----------
        structure_id
            1..104.
        mask
            Flat; any type of number.

        Returns
        -------
        dict
            Voxels taken from each other structure that had them.

        Raises
        ------
        NotBinaryError
            The labels are unchanged then.
        """
        if mask.dtype.itemsize == 1 and mask.size >= _WORD_BYTES:
            whole = mask.size // _WORD_BYTES
            words = mask[: whole * _WORD_BYTES].view(np.uint64)
            where = _busy(words)
            inside = words[where].view(np.uint8)
            rest = mask[whole * _WORD_BYTES :].view(np.uint8)
            _refuse_others(inside, rest)
            before = self._words[where].view(np.uint8)
            taken = before[inside != 0]
            self._words[where] = np.where(inside, np.uint8(structure_id), before).view(np.uint64)
            return _counts(np.concatenate([taken, self._give(structure_id, rest, whole)]))
        _refuse_others(mask[mask != 0])
        return _counts(self._give(structure_id, mask, 0))

    def _give(
        self, structure_id: int, mask: npt.NDArray[Any], first_word: int
    ) -> npt.NDArray[np.uint8]:
        """Set voxels one by one; what they were before."""
        where = np.flatnonzero(mask) + first_word * _WORD_BYTES
        before = self.labels[where]
        self.labels[where] = structure_id
        return before


def _busy(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Indices of words that are not 0."""
    whole = words.size // _BLOCK * _BLOCK
    blocks = words[:whole].reshape(-1, _BLOCK)
    busy = np.flatnonzero(blocks.max(axis=1))
    row, column = np.nonzero(blocks[busy])
    return np.concatenate([busy[row] * _BLOCK + column, whole + np.flatnonzero(words[whole:])])


def _refuse_others(*voxels: npt.NDArray[Any]) -> None:
    for values in voxels:
        if ((values != 0) & (values != 1)).any():
            low, high = values.min(), values.max()
            raise NotBinaryError(f"values up to {high:g}" if low >= 0 else f"{low:g} to {high:g}")


def _counts(before: npt.NDArray[np.uint8]) -> dict[int, int]:
    counts = np.bincount(before, minlength=256)
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i}
