"""Writes a volume as a CT series.

Objects are complete by their Information Object Definition, belong to nobody and say so, and
are the same bytes for the same options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from dicom_seg.synthetic.ct_instance import ct_dataset
from dicom_seg.synthetic.multiframe import frame_planes, multiframe_dataset
from dicom_seg.synthetic.options import FileNames, ObjectKind, SeriesOptions
from dicom_seg.synthetic.pixel_encoding import PixelSyntax, pixel_data
from dicom_seg.synthetic.stored_pixels import stored_plane
from dicom_seg.synthetic.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from inference.volume import Volume


def write_ct_series(
    volume: Volume, folder: Path, options: SeriesOptions | None = None
) -> list[Path]:
    """Write every plane of a volume as DICOM.

    Parameters
    ----------
    volume
        ``(z, y, x)`` Hounsfield units; ``PADDING_HU`` becomes padding where the format has it.
    folder
        Where the files go; made if needed.

    Returns
    -------
    list of Path
        The files in stack order: one a plane, or one a multi-frame instance.

    Raises
    ------
    ValueError
        If the transfer syntax cannot hold the pixel format, a measured voxel would be stored
        as padding, or rows and columns are not at right angles.
    """
    chosen = options or SeriesOptions()
    folder.mkdir(parents=True, exist_ok=True)
    planes = volume.geometry.shape[0]
    count = planes if chosen.kind is ObjectKind.CT else len(frame_planes(planes, chosen))
    paths: list[Path] = []
    for number, ds in enumerate(_instances(volume, chosen)):
        path = folder / _file_name(number, count, ds, chosen)
        save(ds, path, chosen.transfer_syntax_uid)
        paths.append(path)
    return paths


def save(ds: Dataset, path: Path, transfer_syntax_uid: str) -> None:
    """Write a dataset as a DICOM file (PS3.10 7)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # written as what it turns out to be
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(str(ds.get("SOPClassUID", "")))
    meta.MediaStorageSOPInstanceUID = UID(str(ds.get("SOPInstanceUID", "")))
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    ds.preamble = b"\0" * 128
    dcmwrite(path, ds, enforce_file_format=False)


def _instances(volume: Volume, options: SeriesOptions) -> Iterator[Dataset]:
    if options.kind is not ObjectKind.CT:
        yield from _multiframe_instances(volume, options)
        return
    for plane in range(volume.geometry.shape[0]):
        ds = ct_dataset(volume, plane, options)
        set_pixels(ds, volume, [plane], options)
        override(ds, options.overrides)
        override(ds, options.plane_overrides.get(plane, {}))
        yield ds


def _multiframe_instances(volume: Volume, options: SeriesOptions) -> Iterator[Dataset]:
    for number, planes in enumerate(frame_planes(volume.geometry.shape[0], options), start=1):
        ds = multiframe_dataset(volume, planes, number, options)
        set_pixels(ds, volume, planes, options)
        override(ds, options.overrides)
        for frame, plane in enumerate(planes):
            values = options.plane_overrides.get(plane, {})
            override(ds.PerFrameFunctionalGroupsSequence[frame], values)
        yield ds


def set_pixels(ds: Dataset, volume: Volume, planes: list[int], options: SeriesOptions) -> None:
    """Set Pixel Data, and what the compression has done to it."""
    pixels = options.pixels
    frames = [stored_plane(volume.hu[z], pixels, pixels.rescale_of(z)) for z in planes]
    syntax = PixelSyntax(options.transfer_syntax_uid)
    data = pixel_data(frames, pixels, syntax, options.loss_level)
    word = pixels.bits_allocated > 8 and syntax.is_native
    ds.add_new("PixelData", "OW" if word else "OB", data)
    ds["PixelData"].is_undefined_length = not syntax.is_native
    if syntax.lossy_method is not None:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = round(sum(frame.nbytes for frame in frames) / len(data), 2)
        ds.LossyImageCompressionMethod = syntax.lossy_method


def override(ds: Dataset, values: Mapping[str, object]) -> None:
    """Set attributes by keyword, wherever an item holds them or else at the top; None removes."""
    for keyword, value in values.items():
        holders = [
            item
            for element in ds
            if element.VR == "SQ"
            for item in _with_items(element.value)
            if keyword in item
        ]
        if keyword in ds or not holders:
            holders.append(ds)
        for holder in holders:
            if value is not None:
                setattr(holder, keyword, value)
            elif keyword in holder:
                delattr(holder, keyword)


def _with_items(items: Sequence[Dataset]) -> Iterator[Dataset]:
    for item in items:
        yield item
        for element in item:
            if element.VR == "SQ":
                yield from _with_items(element.value)


def _file_name(number: int, count: int, ds: Dataset, options: SeriesOptions) -> str:
    if options.file_names is FileNames.SOP_INSTANCE_UID:
        return f"{ds.SOPInstanceUID}.dcm"
    prefix = f"s{options.series:02d}_{options.stack:02d}_"
    if options.file_names is FileNames.SHUFFLED:
        order = np.random.default_rng([options.seed, 1]).permutation(count)
        return f"{prefix}{order[number]:05d}"
    return f"{prefix}{number + 1:05d}.dcm"
