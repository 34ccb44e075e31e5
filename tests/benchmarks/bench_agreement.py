"""How labels of the embedded model agree: in bf16 with fp32, over the body with the whole volume.

``python tests/benchmarks/bench_agreement.py [--seeds 21 9] [--parts precision,body]
[--margin-mm 80] [--json FILE]``

Each seed is a synthetic patient on voxels of 3 mm. ``precision`` takes the patient's own field
of view, published windows, and holds bf16, channels last, against fp32 in torch's usual layout.
``body`` widens the field by ``--margin-mm`` of air to the left, right, front and back (a narrow
field is computed whole) and holds windows laid over the body against windows over the whole
volume, both in bf16, and both against the exact truth.

Figures: the share of equal voxels, background included, and the mean Dice over the structures
that the one that is compared with shows. The same seed gives the same figures on the same
processor; another one may round otherwise. bf16 is computed on any machine, if slowly.
``--planes`` and ``--window`` make a patient small, to see that everything runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from row import Row, Unit, add_json_option, write_rows

if TYPE_CHECKING:
    from inference.geometry import Geometry
    from inference.label_map import LabelMap
    from inference.volume import Volume
    from inference.windows import WindowSpec

BENCHMARK = "agreement"
SPACING_MM = 3.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two label maps on the same planes."""

    equal: float  #: share of all voxels
    dice: float  #: mean over the structures of the first
    structures: int  #: of the first

    @classmethod
    def of(cls, reference: LabelMap, found: LabelMap) -> Agreement:
        """Of a label map with the one that it is compared with."""
        from inference.agreement import Overlap

        overlap = Overlap.between(reference, found)
        equal = float(np.trace(overlap.counts) / overlap.counts.sum())
        dice = [overlap.dice(each) for each in reference.present()]
        return cls(equal, float(np.mean(dice)), len(dice))


@dataclass(frozen=True, slots=True)
class Scanned:
    """Which patients, how much of them, and in which windows."""

    planes: int | None  #: None: all
    window: int  #: voxels a side
    margin_mm: float

    def scan(self, seed: int, margin_mm: float) -> tuple[Volume, LabelMap]:
        """A patient and its truth."""
        from inference.synthetic.patient import SyntheticPatient, default_geometry

        patient = SyntheticPatient.from_seed(seed)
        geometry = default_geometry(patient, (SPACING_MM,) * 3)
        return patient.sample(widened(geometry, round(margin_mm / SPACING_MM), self.planes))

    def spec(self, *, bf16: bool) -> WindowSpec:
        """The arithmetic that is fast where bf16 is, or the published one."""
        from inference.windows import Precision, WindowSpec

        precision = Precision.BF16 if bf16 else Precision.FP32
        return WindowSpec(self.window, precision=precision, channels_last=bf16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 9])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--margin-mm", type=float, default=80.0)
    parser.add_argument("--planes", type=int, default=None)
    parser.add_argument("--window", type=int, default=96)
    add_json_option(parser)
    options = parser.parse_args()
    scanned = Scanned(options.planes, options.window, options.margin_mm)
    rows = []
    for seed in options.seeds:
        for part in options.parts.split(","):
            for row in PARTS[part](scanned, seed):
                rows.append(row)
                peer = "" if row.theirs is None else f", {row.peer} {row.theirs:.5f}"
                print(f"{row.ours:.5f}  {row.work}{peer}", flush=True)
    write_rows(options.json, rows)


def precision_rows(scanned: Scanned, seed: int) -> list[Row]:
    """bf16 against fp32, windows where they are published."""
    volume, _ = scanned.scan(seed, 0.0)
    published = labelled(volume, scanned.spec(bf16=False), body_only=False)
    fast = labelled(volume, scanned.spec(bf16=True), body_only=False)
    return rows_of(f"{named(seed, volume)}, bf16 with fp32", Agreement.of(published, fast))


def body_rows(scanned: Scanned, seed: int) -> list[Row]:
    """The body against the whole volume, and both against the truth."""
    volume, truth = scanned.scan(seed, scanned.margin_mm)
    spec = scanned.spec(bf16=True)
    whole = labelled(volume, spec, body_only=False)
    body = labelled(volume, spec, body_only=True)
    work = f"{named(seed, volume)} and {scanned.margin_mm:g} mm of air"
    ours, theirs = Agreement.of(truth, body), Agreement.of(truth, whole)
    told = f"{work}, body only with the truth"
    pairs = zip(rows_of(told, ours), rows_of(told, theirs), strict=True)
    return [
        *rows_of(f"{work}, body only with whole volume", Agreement.of(whole, body)),
        *(replace(our, peer="whole volume", theirs=their.ours) for our, their in pairs),
    ]


PARTS: dict[str, Callable[[Scanned, int], list[Row]]] = {
    "precision": precision_rows,
    "body": body_rows,
}


def rows_of(work: str, found: Agreement) -> list[Row]:
    """One for equal voxels, one for the Dice."""
    return [
        Row(BENCHMARK, f"{work}: equal voxels", Unit.SHARE, found.equal),
        Row(
            BENCHMARK, f"{work}: mean Dice of {found.structures} structures", Unit.SHARE, found.dice
        ),
    ]


def named(seed: int, volume: Volume) -> str:
    """A patient, and how large its scan is."""
    z, y, x = volume.geometry.shape
    return f"patient {seed}, {x} x {y} x {z}"


def labelled(volume: Volume, spec: WindowSpec, *, body_only: bool) -> LabelMap:
    """Labels of the embedded model."""
    from inference.engine.heap import keep_heap
    from inference.model_store import embedded_store
    from inference.segmenter import SegmenterOptions, SegResNetSegmenter

    keep_heap()
    store = embedded_store()
    (name,) = store.names()
    options = SegmenterOptions(windows=spec, body_only=body_only)
    return SegResNetSegmenter(store.load(name), options).segment(volume)


def widened(geometry: Geometry, margin: int, planes: int | None) -> Geometry:
    """The field of view with ``margin`` voxels more at its four sides; the first planes of it."""
    from inference.geometry import Geometry

    depth, height, width = geometry.shape
    affine = geometry.affine.copy()
    affine[:, 3] -= margin * (affine[:, 1] + affine[:, 2])
    shape = (min(planes or depth, depth), height + 2 * margin, width + 2 * margin)
    return Geometry.from_affine(affine, shape)


if __name__ == "__main__":
    main()
