"""One raw case becomes a scan and a label file."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from inference.durable import draft_of, durable_file
from inference.geometry import Geometry
from inference.nifti import NiftiError
from inference.reasons import Reason
from inference.structures import structure
from training.prepare.label_merge import LabelMerge, NotBinaryError
from training.prepare.mask_names import MASK_FOLDER, MaskFiles, find_masks
from training.prepare.outcome import ImageKept, Outcome, Remark, Rules, Split
from training.prepare.raw_dataset import RawCase
from training.prepare.voxel_file import VoxelFile, VoxelReader

IMAGE = "ct.nii.gz"
#: Of libdeflate: label maps shrink to a hundredth at any level, so the fastest but one.
_LEVEL = 2
_HU = (-32767, 32767)  #: what the clinic's reader takes; the lowest int16 means padding


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where a case lies in the prepared dataset."""

    image: Path
    labels: Path

    @classmethod
    def of(cls, root: Path, case: str, split: Split) -> CaseFiles:
        """In the layout of ``DatasetFolder``."""
        name = f"{case}.nii.gz"
        return cls(root / f"images{split.suffix}" / name, root / f"labels{split.suffix}" / name)


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """What is kept of a scan whose voxels were looked at."""

    image: Any
    geometry: Geometry


def prepare_case(case: RawCase, root: Path, rules: Rules) -> Outcome:
    """Check a case and, if nothing refuses it, add it to the dataset in ``root``.

    The label file appears whole, after the scan. All faults of the masks are told, not only
    the first.

    Raises
    ------
    OSError
        If the dataset cannot be written.
    """
    reader = VoxelReader()
    names = find_masks(case.folder / MASK_FOLDER, rules.remap_v2)
    scan, faults = _scan(case, reader)
    remarks = [*case.remarks, *names.remarks, *faults]
    if scan is not None:
        merge = LabelMerge(int(np.prod(scan.geometry.shape)))
        remarks += _absences(names, reader)
        remarks += _merge(names, scan.geometry, reader, merge)
        if not any(remark.refuses for remark in remarks) and not merge.labels.any():
            detail = "no mask holds a voxel"
            remarks.append(Remark(Reason.NO_STRUCTURE, True, MASK_FOLDER, detail))
    if scan is None or any(remark.refuses for remark in remarks):
        return Outcome(case.name, case.split, tuple(remarks))
    files = CaseFiles.of(root, case.name, case.split)
    kept = keep_image(case.folder / IMAGE, files.image, copy=rules.copy_images)
    _write_labels(scan.image, merge.labels, files.labels)
    return Outcome(case.name, case.split, tuple(remarks), kept)


def keep_image(source: Path, target: Path, *, copy: bool) -> ImageKept:
    """Link the scan into the dataset; copy it if asked to, or where a link is not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(target)
    draft.unlink(missing_ok=True)
    kept = ImageKept.COPY if copy or not _link(source, draft) else ImageKept.HARD_LINK
    if kept is ImageKept.COPY:
        shutil.copyfile(source, draft)
    # renaming one link over another of the same file does nothing, and leaves both
    target.unlink(missing_ok=True)
    draft.replace(target)
    return kept


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False  # another disk, another owner, or a file system without links
    return True


def _scan(case: RawCase, reader: VoxelReader) -> tuple[_Scan | None, list[Remark]]:
    path = case.folder / IMAGE
    if not path.is_file():
        return None, [Remark(Reason.MISSING_IMAGE, True, IMAGE, "no such file")]
    try:
        file = reader.read(path)
    except NiftiError as error:
        return None, [_unreadable(error, path, IMAGE)]
    low, high = float(file.voxels.min()), float(file.voxels.max())
    if not (low >= _HU[0] and high <= _HU[1]):
        detail = f"holds {low:g}..{high:g}, not HU"
        return None, [Remark(Reason.CORRUPT_PIXEL_DATA, True, IMAGE, detail)]
    return _Scan(file.image, file.geometry), []


def _absences(names: MaskFiles, reader: VoxelReader) -> list[Remark]:
    """Structures that v2 has no mask for, and that may lie in the scan."""
    remarks = []
    shown: dict[Path, bool] = {}
    for name, witnesses in sorted(names.absent_if_empty.items()):
        for path in witnesses:
            if path not in shown:
                try:
                    shown[path] = bool(reader.read(path).voxels.any())
                except NiftiError:
                    shown[path] = True
        seen = [path.name for path in witnesses if shown[path]]
        if seen:
            detail = f"v2 has no such mask, and {' and '.join(seen)} is not empty"
            file = f"{MASK_FOLDER}/{name}.nii.gz"
            remarks.append(Remark(Reason.MISSING_MASK, True, file, detail))
    return remarks


def _merge(
    names: MaskFiles, geometry: Geometry, reader: VoxelReader, merge: LabelMerge
) -> list[Remark]:
    remarks = []
    for structure_id, path in names.masks:
        file = f"{MASK_FOLDER}/{path.name}"
        try:
            mask = reader.read(path)
        except NiftiError as error:
            remarks.append(_unreadable(error, path, file))
            continue
        if not mask.geometry.matches(geometry):
            detail = _difference(mask.geometry, geometry)
            remarks.append(Remark(Reason.OTHER_GRID, True, file, detail))
            continue
        try:
            taken = merge.add(structure_id, mask.voxels)
        except NotBinaryError as error:
            remarks.append(Remark(Reason.MASK_NOT_BINARY, True, file, str(error)))
            continue
        remarks += _about_values(mask, file)
        others = [f"{structure(i).name} {n}" for i, n in taken.items() if i != structure_id]
        if others:
            count = sum(n for i, n in taken.items() if i != structure_id)
            detail = f"{count} voxels taken from others: {', '.join(others)}"
            remarks.append(Remark(Reason.OVERLAPPING_MASKS, False, file, detail))
    return remarks


def _about_values(mask: VoxelFile, file: str) -> list[Remark]:
    stored = mask.image.get_data_dtype()
    if stored.kind != "f" and mask.is_stored:
        return []
    detail = f"{stored.newbyteorder('=')}{'' if mask.is_stored else ', scaled'}, values 0 and 1"
    return [Remark(Reason.FLOAT_MASK, False, file, detail)]


def _difference(mask: Geometry, scan: Geometry) -> str:
    if mask.shape != scan.shape:
        return f"(z, y, x) {mask.shape} voxels, the scan has {scan.shape}"
    apart_mm = np.abs(mask.origins_mm - scan.origins_mm).max()
    if apart_mm > 0.01:
        return f"planes up to {apart_mm:.3g} mm from those of the scan"
    return "other spacing or orientation than the scan"


def _unreadable(error: NiftiError, path: Path, file: str) -> Remark:
    return Remark(error.reason, True, file, error.detail.replace(str(path), path.name))


def _write_labels(scan: Any, labels: npt.NDArray[np.uint8], path: Path) -> None:
    """The scan's header, so that both lie on one grid to the last bit."""
    header = scan.header.copy()
    header.set_data_shape(scan.shape[:3])
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    for name in ("descrip", "aux_file", "intent_name"):  # what a scanner wrote there is not ours
        header[name] = b""
    header["vox_offset"] = header.sizeof_hdr + 4
    no_extension = bytes(4)
    data = b"".join((header.binaryblock, no_extension, labels.data))
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_file(path) as draft:
        draft.write_bytes(imagecodecs.gzip_encode(data, level=_LEVEL))
