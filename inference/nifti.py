"""CT volumes and label maps as NIfTI-1 and NIfTI-2 files.

NIfTI is RAS with axes ``(x, y, z)``; here arrays are ``(z, y, x)`` on an LPS ``Geometry``.
A NIfTI does not say what was measured: an MR cannot be told from a CT.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from inference.errors import InferenceError, InvalidGeometryError
from inference.finding import Finding
from inference.geometry import FloatArray, Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.structures import STRUCTURE_COUNT
from inference.volume import Volume

#: What is read unless told otherwise.
MAX_VOXELS = 1_500_000_000
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: gzip makes at most 1032 bytes of one.
_GZIP_GAIN = 1032
#: Reverses the order of index axes: (z, y, x, 1) -> (x, y, z, 1).
_REVERSED = np.eye(4)[:, [2, 1, 0, 3]]


class NiftiError(InferenceError):
    """A NIfTI file that cannot be made into a volume or a label map; the detail names it."""


def read_nifti(path: Path, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read a CT in Hounsfield units.

    Values are rounded to whole HU. The file is read and converted plane by plane.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    max_voxels
        Larger files are refused.

    Raises
    ------
    NiftiError
        ``unreadable-file`` if it is no NIfTI, truncated, or not three-dimensional numbers;
        ``no-orientation`` if neither sform nor qform has a code; ``missing-geometry`` if the
        one that has does not describe a grid; ``orientation-conflict`` if one mirrors the
        other; ``corrupt-pixel-data`` if values are not
        finite or beyond 16 bit; ``too-large``.
    """
    image = open_nifti(path, max_voxels)
    geometry = nifti_geometry(image, path)
    hu = np.empty(geometry.shape, dtype=np.int16)
    limits = np.iinfo(np.int16)
    for z, plane in enumerate(nifti_planes(image, path)):
        low, high = float(plane.min()), float(plane.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise NiftiError(Reason.CORRUPT_PIXEL_DATA, f"{path}: plane {z} is not finite")
        # the lowest int16 stands for padding
        if low < limits.min + 1 or high > limits.max:
            raise NiftiError(
                Reason.CORRUPT_PIXEL_DATA, f"{path}: plane {z} holds {low:g}..{high:g}, not HU"
            )
        hu[z] = plane if plane.dtype.kind in "iu" else np.rint(plane)
    return Volume(hu, geometry)


def read_label_nifti(path: Path, max_voxels: int = MAX_VOXELS) -> LabelMap:
    """Read structure ids, v1 order; floating point that holds whole ids is accepted.

    Raises
    ------
    NiftiError
        As ``read_nifti``; ``corrupt-pixel-data`` if a value is not a whole id 0..104.
    """
    image = open_nifti(path, max_voxels)
    geometry = nifti_geometry(image, path)
    labels = np.empty(geometry.shape, dtype=np.uint8)
    for z, plane in enumerate(nifti_planes(image, path)):
        odd = ~((plane >= 0) & (plane <= STRUCTURE_COUNT) & (plane == np.rint(plane)))
        if odd.any():
            value = plane[odd].flat[0]
            raise NiftiError(
                Reason.CORRUPT_PIXEL_DATA,
                f"{path}: plane {z} holds {value:g}, not an id 0..{STRUCTURE_COUNT}",
            )
        labels[z] = plane
    return LabelMap(labels, geometry)


def write_label_nifti(label_map: LabelMap, path: Path) -> None:
    """Write structure ids as uint8 with sform and qform; whole or not at all.

    Tilted stacks keep their shear in the sform; the qform cannot hold one and is left out.

    Parameters
    ----------
    label_map
        On evenly spaced planes.
    path
        ``.nii`` or ``.nii.gz``.

    Raises
    ------
    InvalidGeometryError
        If the planes are unevenly spaced: NIfTI cannot say so.
    """
    affine = _RAS_TO_LPS @ label_map.geometry.affine @ _REVERSED.T
    image = nib.Nifti1Image(label_map.labels.transpose(2, 1, 0), affine, dtype=np.uint8)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = np.abs(steps.T @ steps - np.eye(3)).max() > 1e-4
    image.set_qform(None if sheared else affine, code=0 if sheared else 1)
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    handle, draft = tempfile.mkstemp(prefix=".writing-", suffix=suffix, dir=path.parent)
    os.close(handle)
    try:
        nib.save(image, draft)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)


def open_nifti(path: Path, max_voxels: int) -> Any:
    """The image as nibabel sees it, nothing read but the header.

    Raises
    ------
    NiftiError
        ``unreadable-file`` or ``too-large``: the header is checked for what the array needs.
    """
    try:
        image = nib.load(path)
        size_bytes = path.stat().st_size
    except MemoryError:
        raise
    except Exception as error:  # whatever the bytes provoke inside nibabel means the same here
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: {_first_line(error)}") from error
    if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 derives from it
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: {type(image).__name__}, not NIfTI")
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: {shape} is not three-dimensional")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: {dtype} voxels are not numbers")
    voxels = int(np.prod(shape, dtype=object))
    if voxels > max_voxels:
        raise NiftiError(Reason.TOO_LARGE, f"{path}: {voxels} voxels, more than {max_voxels}")
    if voxels * dtype.itemsize > size_bytes * (_GZIP_GAIN if path.suffix.lower() == ".gz" else 1):
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: truncated: {size_bytes} bytes")
    return image


def nifti_geometry(image: Any, path: Path) -> Geometry:
    """Where the voxels of an opened file lie.

    Raises
    ------
    NiftiError
        ``no-orientation``, ``missing-geometry``, or ``orientation-conflict`` if sform and
        qform both have a code and one mirrors the other: one of them exchanges left and right.
    """
    header = image.header
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        raise NiftiError(Reason.NO_ORIENTATION, f"{path}: sform_code and qform_code are 0")
    affine: FloatArray = _RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64) @ _REVERSED
    unit = int(header["xyzt_units"]) & 0x07  # NIfTI-1: 1 metre, 2 millimetre, 3 micrometre
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(unit, 1.0)
    x, y, z = image.shape[:3]
    try:
        geometry = Geometry.from_affine(affine, (z, y, x))
    except InvalidGeometryError as error:
        raise NiftiError(Reason.MISSING_GEOMETRY, f"{path}: {error.detail}") from error
    between = _between_forms(header)
    if between is not None and np.linalg.det(between[:3, :3]) < 0:
        raise NiftiError(Reason.ORIENTATION_CONFLICT, f"{path}: the qform mirrors the sform")
    return geometry


def orientation_findings(image: Any) -> tuple[Finding, ...]:
    """``orientation-conflict`` where the qform puts a corner more than a voxel from the sform.

    A file may place its voxels in the scanner by one and in an atlas by the other; it is the
    sform that is used, as nearly everywhere.

    Parameters
    ----------
    image
        One that ``nifti_geometry`` accepts.
    """
    between = _between_forms(image.header)
    if between is None:
        return ()
    ends = [(0.0, float(extent - 1)) for extent in image.shape[:3]]
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*ends)])
    apart = np.linalg.norm((corners @ between.T - corners)[:, :3], axis=1).max()
    if apart <= 1:
        return ()
    detail = f"sform and qform place a corner {apart:.1f} voxels apart; the sform is used"
    return (Finding(Reason.ORIENTATION_CONFLICT, detail),)


def _between_forms(header: Any) -> FloatArray | None:
    """4 x 4, index by the qform -> index by the sform; None unless both have a code."""
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return None
    try:
        qform = header.get_qform()
    except HeaderDataError:  # no rotation: the sform stands alone
        return None
    return np.asarray(np.linalg.solve(header.get_sform(), qform), dtype=np.float64)


def nifti_planes(image: Any, path: Path) -> Iterator[npt.NDArray[Any]]:
    """``(y, x)`` scaled values, plane by plane: x runs fastest in the file.

    Raises
    ------
    NiftiError
        ``unreadable-file`` if the data end too soon or are damaged.
    """
    x, y, z = image.shape[:3]
    dtype = image.get_data_dtype()
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    try:
        with ImageOpener(path, "rb") as file:
            file.seek(int(image.dataobj.offset))
            for index in range(z):
                data = file.read(x * y * dtype.itemsize)
                if len(data) < x * y * dtype.itemsize:
                    raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: ends in plane {index}")
                plane = np.frombuffer(data, dtype=dtype).reshape(y, x)
                yield plane if (slope, intercept) == (1, 0) else plane * slope + intercept
            file.read(1)  # lets gzip compare its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise NiftiError(Reason.UNREADABLE_FILE, f"{path}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
