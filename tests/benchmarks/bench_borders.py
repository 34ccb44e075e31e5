"""Borders between the voxels of the network's grid: what they cost, and how near they are.

``python tests/benchmarks/bench_borders.py [--patients 9:HEAD_NECK,21:ABDOMEN,5:THORAX]
[--spacing 1.25 1.0] [--rounds N] [--rules STEP] [--small] [--json FILE]``

Synthetic patients on planes of about 1 mm are labelled by the embedded 3 mm model, nearest and
smooth in turns, each in a process of its own: seconds, peak memory of it from there on, and mean
Dice, share of equal voxels and surface against the exact truth of those planes (surface: mean
distance, over structures, of the found surface from the true one and back, mm). CPU time of
putting labels onto the planes is measured apart. ``--rules STEP`` holds other rules for borders
against the truth as well, on every STEP-th plane, from all 105 logits of MONAI's inferer (about
2 GB), which none of our own ways keeps. ``--small`` shows that everything runs, on a few planes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from border_rules import confusion, counts_by_rule
from process_memory import peak_mb
from row import Row, Unit, add_json_option, write_rows

if TYPE_CHECKING:
    from inference.label_map import LabelMap
    from inference.volume import Volume

BENCHMARK = "borders"
WAYS = ("nearest", "smooth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", default="9:HEAD_NECK,21:ABDOMEN,5:THORAX")
    parser.add_argument("--spacing", nargs=2, type=float, default=[1.25, 1.0], help="z, in plane")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rules", type=int, default=0, metavar="STEP")
    add_json_option(parser)
    parser.add_argument("--serve", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        way, file = options.serve
        print(json.dumps(serve(Work.of(options, options.patients), way, Path(file))))
        return
    rows = []
    for patient in options.patients.split(","):
        work = Work.of(options, patient)
        rows.append(compare(work, options.rounds))
        if options.rules:
            for name, counts in counts_by_rule(*work.scan(), options.rules):
                print(f"  rule {name:36} {said(counts)}")
    write_rows(options.json, rows)


@dataclass(frozen=True, slots=True)
class Work:
    """A patient and its planes."""

    patient: str  #: SEED:VIEW
    spacing_mm: tuple[float, float]  #: of planes, and in them
    small: bool  #: a few planes and small windows

    @classmethod
    def of(cls, options: argparse.Namespace, patient: str) -> Work:
        """What the options ask for."""
        return cls(patient, tuple(options.spacing), options.small)

    @property
    def arguments(self) -> list[str]:
        """Options that ask for it."""
        spacing = [str(each) for each in self.spacing_mm]
        small = ["--small"] if self.small else []
        return ["--patients", self.patient, "--spacing", *spacing, *small]

    def scan(self) -> tuple[Volume, LabelMap]:
        """The patient, and the truth."""
        from inference.geometry import Geometry
        from inference.synthetic.patient import SyntheticPatient, default_geometry
        from inference.synthetic.traits import FieldOfView

        seed, view = self.patient.split(":")
        found = SyntheticPatient.from_seed(int(seed))
        z_mm, pixel_mm = self.spacing_mm
        whole = default_geometry(found, (z_mm, pixel_mm, pixel_mm), FieldOfView[view])
        if self.small:
            planes = whole.origins_mm[:12]
            shape = (len(planes), *whole.shape[1:])
            whole = Geometry(shape, planes, whole.row_step_mm, whole.column_step_mm)
        return found.sample(whole)


def serve(work: Work, way: str, out: Path) -> dict[str, float]:
    """Label a patient in one way; in a process of its own."""
    from inference import segmenter as module
    from inference.engine.arithmetic import fast_windows
    from inference.engine.heap import keep_heap
    from inference.model_store import embedded_store

    keep_heap()
    volume, _ = work.scan()
    (name,) = embedded_store().names()
    windows = replace(fast_windows("cpu"), window_voxels=32 if work.small else 96)
    options = module.SegmenterOptions(
        windows=windows, body_only=True, smooth_borders=way == "smooth"
    )
    segmenter = module.SegResNetSegmenter(embedded_store().load(name), options)
    placing_s = [0.0]

    def timed(place):  # type: ignore[no-untyped-def]
        def run(found, grid):  # type: ignore[no-untyped-def]
            started = time.process_time()
            placed = place(found, grid)
            placing_s[0] = time.process_time() - started
            return placed

        return run

    module.labels_to_source = timed(module.labels_to_source)  # type: ignore[attr-defined]
    module.standings_to_source = timed(module.standings_to_source)  # type: ignore[attr-defined]
    Path("/proc/self/clear_refs").write_text("5")  # the peak before does not count, proc(5)
    started, started_cpu = time.perf_counter(), time.process_time()
    labels = segmenter.segment(volume).labels
    np.save(out, labels)
    return {
        "s": time.perf_counter() - started,
        "cpu_s": time.process_time() - started_cpu,
        "ns": placing_s[0] / labels.size * 1e9,
        "peak_mb": peak_mb(),
    }


def compare(work: Work, rounds: int) -> Row:
    """Both ways in turns, and their labels against the truth."""
    from inference.label_map import LabelMap

    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    _, truth = work.scan()
    print(f"{work.patient}, {truth.geometry.shape} voxels, {work.spacing_mm} mm")
    with tempfile.TemporaryDirectory() as folder:
        for _, way in itertools.product(range(rounds), WAYS):
            command = [__file__, *work.arguments, "--serve", way, f"{folder}/{way}.npy"]
            done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
        best = {
            way: {key: min(run[key] for run in runs) for key in runs[0]}
            for way, runs in found.items()
        }
        for way in WAYS:
            labels = LabelMap(np.load(Path(folder) / f"{way}.npy"), truth.geometry)
            counts = confusion(truth.labels, labels.labels)
            figures = ", ".join(f"{value:.2f} {key}" for key, value in best[way].items())
            mm = mean_surface_mm(truth, labels)
            print(f"  {way:8} {figures}; {said(counts)}, surface off by {mm:.2f} mm")
    smooth, nearest = best["smooth"], best["nearest"]
    text = f"patient {work.patient}, labels on its planes, smooth; peer: nearest"
    peaks = (smooth["peak_mb"], nearest["peak_mb"])
    seconds = (smooth["cpu_s"], "nearest", nearest["cpu_s"])
    return Row(BENCHMARK, text, Unit.CPU_SECONDS, *seconds, *peaks)


def said(counts: npt.NDArray[np.int64]) -> str:
    """Mean Dice of the structures of the truth, and the share of equal voxels."""
    both, sizes = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)
    present = np.flatnonzero(counts.sum(axis=1))[1:]
    dice = (2 * both[present] / sizes[present]).mean()
    share = both.sum() / counts.sum()
    return f"Dice {dice:.4f} of {present.size} structures, {share:.3%} of voxels right"


def mean_surface_mm(truth: LabelMap, found: LabelMap) -> float:
    """Mean distance of surfaces both ways, over structures that both have."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    ours, theirs = found.boxes(), truth.boxes()
    distances = []
    for structure in sorted(ours.keys() & theirs.keys()):
        pair = zip(ours[structure], theirs[structure], strict=True)
        box = tuple(
            slice(max(min(a.start, b.start) - 1, 0), max(a.stop, b.stop) + 1) for a, b in pair
        )
        masks = [each.labels[box] == structure for each in (found, truth)]
        surfaces = [mask & ~binary_erosion(mask) for mask in masks]
        away = [
            distance_transform_edt(~surface, sampling=truth.geometry.spacing_mm)
            for surface in surfaces
        ]
        distances.append((away[1][surfaces[0]].mean() + away[0][surfaces[1]].mean()) / 2)
    return float(np.mean(distances))


if __name__ == "__main__":
    main()
