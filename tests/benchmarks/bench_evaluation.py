"""Evaluation of a large label map: seconds and memory, and ratios to MONAI's own metrics.

    python tests/benchmarks/bench_evaluation.py [--planes 400] [--matrix 512] [--structures 90]
        [--json FILE]

The label maps are the synthetic patient, enlarged, and the same moved by four voxels with every
third plane's structures grown. Each measurement is a process of its own; memory is its peak with
all libraries. The rival is MONAI's surface Dice and HD95 on some structures, cropped as ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from process_memory import peak_mb
from row import Row, Unit, add_json_option, write_rows

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.synthetic.patient import SyntheticPatient, default_geometry

SPACING_MM = (1.25, 0.8, 0.8)
RIVAL_STRUCTURES = 12


def make_pair(planes: int, matrix: int, structures: int) -> tuple[LabelMap, LabelMap]:
    """The commonest structures of the synthetic patient; and what a mediocre model finds."""
    patient = SyntheticPatient.from_seed(1)
    _, coarse = patient.sample(default_geometry(patient, spacing_mm=(4.0, 3.0, 3.0)))
    counts = coarse.slice_counts().sum(axis=0)
    counts[0] = 0
    keep = np.zeros(256, dtype=np.uint8)
    chosen = np.argsort(counts)[::-1][:structures]
    keep[chosen] = chosen
    enlarge = [
        np.arange(n) * m // n
        for n, m in zip((planes, matrix, matrix), coarse.labels.shape, strict=True)
    ]
    truth = keep[coarse.labels[np.ix_(*enlarge)]]
    found = np.roll(truth, (4, 4), axis=(1, 2))
    for plane in found[::3]:
        grown = np.roll(plane, 1, axis=0)
        np.copyto(plane, grown, where=plane == 0)
    z, y, x = SPACING_MM
    matrix_lps = [[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1]]
    geometry = Geometry.from_affine(matrix_lps, truth.shape)
    return LabelMap(truth, geometry), LabelMap(found, geometry)


def measure_ours(truth: LabelMap, found: LabelMap, only: list[int] | None) -> dict[str, float]:
    from training.evaluation.figures import measure
    from training.evaluation.surface import SurfaceTables

    SurfaceTables(truth.geometry)  # imports MONAI once, which is not the measurement
    wall, cpu = time.perf_counter(), time.process_time()
    agreements = measure(truth, found, only=only)
    return {
        "structures": len(agreements),
        "seconds": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "surface_dice": float(np.mean([a.surface_dice for a in agreements if a.surface_dice])),
    }


def measure_rival(truth: LabelMap, found: LabelMap, only: list[int]) -> dict[str, float]:
    import warnings

    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    warnings.simplefilter("ignore")
    wall, cpu, dice = time.perf_counter(), time.process_time(), []
    boxes = (truth.boxes(), found.boxes())  # ours, too, has to find the structures first
    for structure_id in only:
        ranges = zip(boxes[0][structure_id], boxes[1][structure_id], strict=True)
        box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in ranges)
        masks = [
            torch.from_numpy(side.labels[box] == structure_id)[None, None]
            for side in (found, truth)
        ]
        settings = {"include_background": True, "spacing": SPACING_MM}
        dice.append(float(compute_surface_dice(*masks, [3.0], use_subvoxels=True, **settings)))
        compute_hausdorff_distance(*masks, percentile=95, **settings)
    return {
        "structures": len(only),
        "seconds": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "surface_dice": float(np.mean(dice)),
    }


def measure_one(which: str, folder: Path) -> None:
    """In a process of its own: one line of JSON."""
    z, y, x = SPACING_MM
    arrays = [np.load(folder / f"{side}.npy") for side in ("truth", "found")]
    matrix = [[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1]]
    truth, found = (LabelMap(a, Geometry.from_affine(matrix, a.shape)) for a in arrays)
    counts = truth.slice_counts().sum(axis=0)[1:]
    largest = np.argsort(counts)[::-1][: np.count_nonzero(counts)]
    some = [int(i) + 1 for i in largest[::4][:RIVAL_STRUCTURES]]
    if which == "all":
        result = measure_ours(truth, found, None)
    elif which == "ours":
        result = measure_ours(truth, found, some)
    else:
        result = measure_rival(truth, found, some)
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=400)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--structures", type=int, default=90)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.one:
        measure_one(options.one, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        pair = make_pair(options.planes, options.matrix, options.structures)
        for side, labels in zip(("truth", "found"), pair, strict=True):
            np.save(Path(folder) / f"{side}.npy", labels.labels)
        del pair
        results = {which: run_one(which, folder) for which in ("all", "ours", "monai")}
    ours, rival = results["ours"], results["monai"]
    print(
        f"MONAI / ours: CPU time {rival['cpu_s'] / ours['cpu_s']:.1f}, "
        f"peak memory {rival['peak_mb'] / ours['peak_mb']:.1f}"
    )
    size = f"{options.matrix} x {options.matrix} x {options.planes}"
    rows = []
    for which, peer in (("ours", rival), ("all", None)):
        run = results[which]
        work = f"surface Dice, HD95 and more, {run['structures']} structures, {size}"
        figures = ("MONAI", peer["cpu_s"]) if peer else (None, None)
        peaks = (run["peak_mb"], peer["peak_mb"] if peer else None)
        rows.append(Row("evaluation", work, Unit.CPU_SECONDS, run["cpu_s"], *figures, *peaks))
    write_rows(options.json, rows)


def run_one(which: str, folder: str) -> dict[str, float]:
    call = [sys.executable, __file__, "--one", which, "--folder", folder]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(which, " ".join(f"{k} {v:.4g}" for k, v in result.items()))
    return result


if __name__ == "__main__":
    main()
