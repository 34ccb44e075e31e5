"""A CT series on disk, labels on its planes, and Segmentations that the service would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from dicom_seg.read.examination import SeriesRules, StackPlan
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import Encoding, SegKind, SegRequest, write_segmentation
from dicom_seg.synthetic.acquisition import stack, tilted, unevenly_spaced
from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume

SHAPE = (9, 13, 11)
STRUCTURES = ("kidney_left", "kidney_right", "rib_left_7", "liver")
MODEL = SegmenterIdentity("wholebody", "1", "ab" * 32, False, "research", (), "here")


def grid(kind: str = "even") -> Geometry:
    even = stack(SHAPE, (2.5, 0.8, 0.7), (11.0, -23.0, 400.0))
    if kind == "tilted":
        return tilted(even, 17.0)
    return unevenly_spaced(even, [2.5] * 4 + [4.0] * 4) if kind == "uneven" else even


def some_labels(geometry: Geometry) -> LabelMap:
    """Ragged blocks; planes 0, 4, 5 and 8 hold nothing."""
    rng = np.random.default_rng(5)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    for number, name in enumerate(STRUCTURES):
        block = labels[(1, 2, 6, 6)[number] :, number * 3 : number * 3 + 4, number : number + 6][:2]
        block[rng.random(block.shape) < 0.8] = STRUCTURE_BY_NAME[name].id
    return LabelMap(labels, geometry)


@dataclass(frozen=True)
class Scan:
    """A series of its own, and what it shows."""

    plan: StackPlan
    labels: LabelMap
    folder: Path

    def write(
        self, name: str, kind: SegKind = SegKind.BINARY, encoding: Encoding | None = None
    ) -> Path:
        request = SegRequest(kind, MODEL, datetime(2026, 11, 22), encoding=encoding)
        return write_segmentation(self.labels, self.plan, request, self.folder / name).path


@pytest.fixture
def make_scan(tmp_path: Path) -> Callable[..., Scan]:
    """``make("tilted")``: also "even", "uneven"; each kind once a test."""

    def make(kind: str = "even") -> Scan:
        geometry = grid(kind)
        volume = Volume(np.full(geometry.shape, 40, dtype=np.int16), geometry)
        files = write_ct_series(volume, tmp_path / f"ct-{kind}")
        examination = examine_series(files, SeriesRules(min_slices=1))
        (plan,) = examination.stacks
        return Scan(plan, some_labels(plan.table.geometry()), tmp_path)

    return make
