"""Volumes as the network sees them, kept on disk and mapped into memory.

A case is made once by the clinic's own preprocessing and kept as int16 and uint8. Its files
are mapped, so any number of cases fits, and any number of processes shares one copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.durable import flush
from inference.preprocessing import IntensitySpec, NetworkInput

#: Image values -1..1 are stored times this.
STORED_SCALE = 32767
#: Places remembered for each structure of a case, to draw windows around.
SPOTS_PER_STRUCTURE = 64
_FRAME = "frame.npy"
#: Planes converted at once: the array's memory runs the other way, plane by plane is slow.
_SLAB = 32


@dataclass(frozen=True, slots=True)
class CaseRecipe:
    """How scans become cases."""

    spacing_mm: float  #: of the network's grid
    intensity: IntensitySpec


@dataclass(frozen=True, slots=True)
class Case:
    """One cached volume on the network's grid, ``(x, y, z)``."""

    folder: Path

    def image(self) -> npt.NDArray[np.int16]:
        """Network values times ``STORED_SCALE``, mapped."""
        return np.asarray(np.load(self.folder / "image.npy", mmap_mode="r"))

    def labels(self) -> npt.NDArray[np.uint8]:
        """Structure ids, mapped."""
        return np.asarray(np.load(self.folder / "labels.npy", mmap_mode="r"))

    def spots(self) -> npt.NDArray[np.int16]:
        """``(n, 4)``: structure id and one of its voxels; no row for what the case lacks."""
        return np.asarray(np.load(self.folder / "spots.npy"))

    def frame(self) -> npt.NDArray[np.float64] | None:
        """``(3, 4)``: voxel ``(x, y, z, 1)`` to mm of the reference body.

        None for real patients: only synthetic ones know their place in it.
        """
        path = self.folder / _FRAME
        return np.asarray(np.load(path)) if path.exists() else None

    def fingerprint(self) -> str:
        """SHA-256 of the labels and of every eighth voxel of the image along each axis."""
        image = self.image()[::8, ::8, ::8]
        digest = hashlib.sha256(repr((self.image().shape, image.shape)).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        digest.update(np.ascontiguousarray(self.labels()).tobytes())
        return digest.hexdigest()


def write_case(
    folder: Path,
    seen: NetworkInput,
    labels: npt.NDArray[np.uint8],
    rng: np.random.Generator,
    frame: npt.NDArray[np.float64] | None = None,
) -> Case:
    """Keep a volume; ``folder`` appears whole or not at all, in place of what was there.

    Parameters
    ----------
    folder
        Of the case.
    seen
        What the network sees.
    labels
        ``(x, y, z)`` structure ids on the same grid.
    rng
        Chooses the spots.
    frame
        ``(3, 4)``, as ``Case.frame``.
    """
    draft = folder.with_name(f".making-{folder.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _write_mapped(draft / "image.npy", seen.array)
        stored = np.ascontiguousarray(labels)
        np.save(draft / "labels.npy", stored)
        np.save(draft / "spots.npy", draw_spots(stored, rng))
        if frame is not None:
            np.save(draft / _FRAME, frame)
        for path in draft.iterdir():
            flush(path)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Case(folder)


def draw_spots(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """``(n, 4)``: for each structure in ``(x, y, z)`` labels its id and some of its voxels.

    Memory beyond the labels is a few planes.
    """
    planes = np.array([np.bincount(plane.ravel(), minlength=256) for plane in labels])
    totals = planes.sum(axis=0)
    ends = planes.cumsum(axis=0)
    structures = [int(i) for i in np.flatnonzero(totals) if i]
    # the n-th voxel of a structure: which plane holds it, and how many come before it there
    ranks = {i: rng.integers(0, totals[i], SPOTS_PER_STRUCTURE) for i in structures}
    where = {i: np.searchsorted(ends[:, i], ranks[i], side="right") for i in structures}
    spots = {i: np.full((SPOTS_PER_STRUCTURE, 4), i) for i in structures}
    for x, plane in enumerate(labels):
        wanted = [i for i in structures if (where[i] == x).any()]
        flat = plane.ravel()
        for i in wanted:
            here = where[i] == x
            own = np.flatnonzero(flat == i)[ranks[i][here] - (ends[x, i] - planes[x, i])]
            spots[i][here, 1:] = np.column_stack(
                [np.full(own.size, x), *np.unravel_index(own, plane.shape)]
            )
    rows = [spots[i] for i in structures]
    return np.concatenate(rows or [np.empty((0, 4))]).astype(np.int16)


def _write_mapped(path: Path, values: npt.NDArray[np.float32]) -> None:
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=values.shape)
    for x in range(0, len(values), _SLAB):
        stored[x : x + _SLAB] = np.round(values[x : x + _SLAB] * STORED_SCALE)
    stored.flush()
