"""Reading many NIfTI files of one grid fast.

Each file is decompressed as a whole by libdeflate into memory that is used again, and headers
that were seen before are not parsed again. Whatever is unusual about a file is left to
``inference.nifti``, which reads plane by plane and knows what to say about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from inference.geometry import Geometry
from inference.nifti import NiftiError, nifti_geometry, nifti_planes, open_nifti
from inference.reasons import Reason

_HEADER_BYTES = 352
_HEADER_BYTES_2 = 544
#: sizeof_hdr of NIfTI-2.
_NIFTI_2 = 540
#: gzip (RFC 1952) ends with CRC and length.
_GZIP_END_BYTES = 8
_GZIP_GAIN = 1032
_MAX_VOXELS = 1_500_000_000


@dataclass(frozen=True, slots=True, eq=False)
class VoxelFile:
    """One file: its header, its place and its voxels.

    Parameters
    ----------
    image
        As nibabel sees it.
    geometry
        Where it lies.
    voxels
        Flat, x fastest, as in the file. They are overwritten by the next reading.
    is_stored
        Whether ``voxels`` are the stored values; False: the file scales them.
    """

    image: Any
    geometry: Geometry
    voxels: npt.NDArray[Any]
    is_stored: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Header:
    image: Any
    geometry: Geometry

    @property
    def is_scaled(self) -> bool:
        return (float(self.image.dataobj.slope), float(self.image.dataobj.inter)) != (1, 0)


class VoxelReader:
    """Reads files one after the other."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)
        self._headers: dict[bytes, _Header] = {}

    def read(self, path: Path) -> VoxelFile:
        """All voxels of a file.

        Raises
        ------
        NiftiError
            ``empty-file``, or the reasons of ``read_nifti``.
        """
        data = self._decompressed(path)
        if data is not None:
            sizes = (int(data[:4].view(order)[0]) for order in ("<i4", ">i4"))
            key = data[: _HEADER_BYTES_2 if _NIFTI_2 in sizes else _HEADER_BYTES].tobytes()
            header = self._headers.get(key)
            if header is None:
                header = self._headers[key] = _header(path)
            image = header.image
            dtype, offset = image.get_data_dtype(), int(image.dataobj.offset)
            count = int(np.prod(image.shape))
            if not header.is_scaled and data.size >= offset + count * dtype.itemsize:
                voxels = np.frombuffer(data.data, dtype=dtype, count=count, offset=offset)
                return VoxelFile(image, header.geometry, voxels, True)
        return _by_planes(path)

    def _decompressed(self, path: Path) -> npt.NDArray[np.uint8] | None:
        """The bytes of a file; None where a closer look is needed."""
        try:
            packed = path.read_bytes()
        except OSError as error:
            detail = f"{path}: {error.strerror}"
            raise NiftiError(Reason.UNREADABLE_FILE, detail) from error
        if not packed:
            raise NiftiError(Reason.EMPTY_FILE, f"{path}: 0 bytes")
        if not packed.startswith(b"\x1f\x8b") or len(packed) < _GZIP_END_BYTES:
            return None
        size = int.from_bytes(packed[-4:], "little")
        if not _HEADER_BYTES_2 <= size <= len(packed) * _GZIP_GAIN:
            return None
        if size > self._memory.size:
            self._memory = np.empty(size, dtype=np.uint8)
        try:
            found = imagecodecs.gzip_decode(packed, out=self._memory[:size].data)
        except imagecodecs.GzipError:
            return None
        return self._memory[:size] if len(found) == size else None


def _header(path: Path) -> _Header:
    image = open_nifti(path, _MAX_VOXELS)
    return _Header(image, nifti_geometry(image, path))


def _by_planes(path: Path) -> VoxelFile:
    header = _header(path)
    planes = [np.array(plane).ravel() for plane in nifti_planes(header.image, path)]
    return VoxelFile(
        header.image, header.geometry, np.concatenate(planes), is_stored=not header.is_scaled
    )
