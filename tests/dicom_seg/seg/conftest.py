"""Cases for Segmentations: a synthetic series, its plan, and labels that tell every axis apart.

The plan is read here with pydicom alone, so that these tests stand without the series reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_seg.read.examination import StackPlan
from dicom_seg.read.slice_table import PixelSource, SliceRow, SliceTable
from dicom_seg.segmentation import (
    EncodedSegmentation,
    SegKind,
    SegRequest,
    write_segmentation,
)
from dicom_seg.synthetic.acquisition import stack, tilted, unevenly_spaced
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume

CREATED = datetime(2026, 11, 21, 10, 15, 30, 250000)
STRUCTURES = ("kidney_left", "kidney_right", "aorta", "rib_left_7", "rib_right_7", "liver")
#: No multiple of eight: frames of packed bits begin inside a byte.
SHAPE = (12, 13, 11)


@dataclass(frozen=True)
class SegCase:
    """A series on disk, its plan, and labels on its planes."""

    paths: list[Path]
    plan: StackPlan
    labels: LabelMap
    folder: Path

    def write(self, request: SegRequest, name: str = "seg.dcm") -> EncodedSegmentation:
        return write_segmentation(self.labels, self.plan, request, self.folder / name)


def geometry_of(source: str) -> Geometry:
    """Planes of 12 x 13 x 11 voxels, as a kind of source has them."""
    even = stack(SHAPE, (2.5, 0.8, 0.7), (11.0, -23.0, 400.0))
    if source == "tilted":
        return tilted(even, 17.0)
    if source == "uneven":
        return unevenly_spaced(even, [2.5] * 6 + [5.0] * 5)
    return even


def labels_on(geometry: Geometry, seed: int = 3) -> LabelMap:
    """Blocks of six structures, none of them symmetric; the last two planes are empty."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    for number, name in enumerate(STRUCTURES):
        z, y, x = number + 1, number % 4 * 3, number % 3 * 3
        block = labels[z : z + 4, y : y + 4, x : x + 5]
        block[rng.random(block.shape) < 0.7] = STRUCTURE_BY_NAME[name].id
    return LabelMap(labels, geometry)


def plan_of(paths: list[Path]) -> StackPlan:
    """The stack of these files, sorted along the normal."""
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    rows = [row for path, ds in zip(paths, datasets, strict=True) for row in rows_of(path, ds)]
    rows.sort(key=lambda row: float(np.dot(row.origin_mm, row.normal)))
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    uid = str(datasets[0].get("FrameOfReferenceUID", ""))
    return StackPlan(SliceTable(tuple(rows), uid), header, "", ())


def rows_of(path: Path, ds: Dataset) -> Iterator[SliceRow]:
    frames = ds.get("PerFrameFunctionalGroupsSequence")
    for number, groups in enumerate(frames or [ds], start=1):
        holders = [groups] + ([ds.SharedFunctionalGroupsSequence[0]] if frames else [])
        position = first(holders, "PlanePositionSequence", "ImagePositionPatient")
        orientation = first(holders, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = first(holders, "PixelMeasuresSequence", "PixelSpacing")
        yield SliceRow(
            path=path,
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            frame_number=number if frames else None,
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            origin_mm=tuple(float(v) for v in position),
            row_cosine=tuple(float(v) for v in orientation[:3]),
            column_cosine=tuple(float(v) for v in orientation[3:]),
            row_spacing_mm=float(spacing[0]),
            column_spacing_mm=float(spacing[1]),
            rows=ds.Rows,
            columns=ds.Columns,
            rescale_slope=1.0,
            rescale_intercept=0.0,
            padding=None,
            pixels=PixelSource(0, 0, 1, 16, 16, 15, True),
        )


def first(holders: list[Dataset], sequence: str, keyword: str) -> list[float]:
    for holder in holders:
        if keyword in holder:
            return list(holder[keyword].value)
        if sequence in holder:
            return list(holder[sequence].value[0][keyword].value)
    raise KeyError(keyword)


def write_source(source: str, options: SeriesOptions, folder: Path) -> list[Path]:
    if source == "multiframe":
        options = replace(options, kind=ObjectKind.ENHANCED_CT)
    geometry = geometry_of(source)
    volume = Volume(np.full(geometry.shape, 40, dtype=np.int16), geometry)
    return write_ct_series(volume, folder, options)


@pytest.fixture(scope="session")
def plain_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Files of each kind of source, written once: not to be changed."""

    @cache
    def files(source: str) -> list[Path]:
        return write_source(source, SeriesOptions(), tmp_path_factory.mktemp(source))

    return files


@pytest.fixture
def make_case(tmp_path: Path, plain_series: Callable[[str], list[Path]]) -> Callable[..., SegCase]:
    """``make("tilted")``: also "even", "uneven", "multiframe"; with options, files of its own."""

    def make(source: str = "even", options: SeriesOptions | None = None) -> SegCase:
        folder = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        paths = plain_series(source)
        if options is not None:
            paths = write_source(source, options, folder / "ct")
        plan = plan_of(paths)
        return SegCase(paths, plan, labels_on(plan.table.geometry()), folder)

    return make


@pytest.fixture
def algorithm() -> SegmenterIdentity:
    return SegmenterIdentity(
        name="wholebody",
        version="1.2",
        digest="ab" * 32,
        demonstration=False,
        intended_use="Research use only",
        parameters=(("spacing_mm", "3.0"), ("overlap", "0.25")),
        source="https://models.example/wholebody, Apache-2.0",
    )


@pytest.fixture
def make_request(algorithm: SegmenterIdentity) -> Callable[..., SegRequest]:
    """``make(SegKind.BINARY, revision=2, ...)``."""

    def make(kind: SegKind = SegKind.BINARY, **fields: object) -> SegRequest:
        return SegRequest(kind, **{"algorithm": algorithm, "created": CREATED, **fields})

    return make
