"""Windows of cached cases, against MONAI's CacheDataset with RandSpatialCropd.

``python tests/benchmarks/bench_case_cache.py [--volumes N] [--edge E] [--window W] [--json
FILE]`` prints a table for N/4, N/2 and N volumes: memory of the process beyond its imports
while it draws, and CPU milliseconds a window (median). One process a row; both ways see the
same volumes, float32 -1..1 with uint8 labels as the preprocessing leaves them. ``anonymous`` is
memory that the machine cannot take back; mapped pages beyond it are the disk's cache, which all
processes share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

from training.case import STORED_SCALE, Case

WAYS = ("ours", "MONAI")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=12)
    parser.add_argument("--edge", type=int, default=200, help="voxels of a volume")
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument(
        "--measure", nargs=3, metavar=("WAY", "FOLDER", "N"), help=argparse.SUPPRESS
    )
    add_json_option(parser)
    options = parser.parse_args()
    if options.measure:
        way, folder, count = options.measure
        folders = sorted(Path(folder).iterdir())[: int(count)]
        print(json.dumps(measure(way, folders, options.window, options.draws)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.volumes):
            make_volume(Path(folder) / f"{number:03d}", options.edge, number)
        print(f"{'volumes':>7} {'way':6} {'anonymous MB':>12} {'resident MB':>11} {'ms':>6}")
        for count in (options.volumes // 4, options.volumes // 2, options.volumes):
            runs = {}
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", way, folder, str(count)]
                command += ["--window", str(options.window), "--draws", str(options.draws)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs[way] = run = json.loads(done.stdout)
                print(
                    f"{count:7} {way:6} {run['anonymous_mb']:12.0f} {run['resident_mb']:11.0f}"
                    f" {run['ms']:6.1f}"
                )
            work = f"{options.window}^3 of {count} volumes of {options.edge}^3"
            rows.append(row(work, runs["ours"], runs["MONAI"]))
    write_rows(options.json, rows)


def row(work: str, ours: dict[str, float], monai: dict[str, float]) -> Row:
    """Memory is what the machine cannot take back."""
    return Row(
        "case cache",
        work,
        Unit.CPU_MILLISECONDS,
        ours["ms"],
        "MONAI CacheDataset",
        monai["ms"],
        ours["anonymous_mb"],
        monai["anonymous_mb"],
    )


def make_volume(folder: Path, edge: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    image = rng.integers(-STORED_SCALE, STORED_SCALE, (edge,) * 3, dtype=np.int16)
    labels = np.zeros((edge,) * 3, np.uint8)
    low, high = edge // 4, edge // 2
    labels[low:high, low:high, low:high] = rng.integers(1, 105)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    spots = np.argwhere(labels)[:: edge * edge]
    ids = labels[tuple(spots.T)]
    np.save(folder / "spots.npy", np.column_stack([ids, spots]).astype(np.int16))


def measure(way: str, folders: list[Path], window: int, draws: int) -> dict[str, float]:
    start = {"ours": _ours, "MONAI": _monai}[way]
    prepare, before = start(folders, window), _memory_mb()
    draw = prepare()
    for number in range(3):
        draw(number)
    spent_s = []
    for number in range(draws):
        started = time.process_time()
        draw(number)
        spent_s.append(time.process_time() - started)
    after = _memory_mb()
    return {
        "ms": 1e3 * float(np.median(spent_s)),
        "anonymous_mb": after["RssAnon"] - before["RssAnon"],
        "resident_mb": after["VmRSS"] - before["VmRSS"],
    }


def _ours(folders: list[Path], window: int) -> Callable[[], Callable[[int], object]]:
    from training.patches import PatchSource
    from training.plan import Plan, Sampling

    def prepare() -> Callable[[int], object]:
        plan = Plan(steps=1, sampling=Sampling.UNIFORM, jitter=False)
        source = PatchSource([Case(folder) for folder in folders], 1, plan)
        return lambda number: source.draw(number, window)

    return prepare


def _monai(folders: list[Path], window: int) -> Callable[[], Callable[[int], object]]:
    from monai.data import CacheDataset
    from monai.transforms import Compose, Lambdad, RandSpatialCropd

    def load(folder: Path) -> np.ndarray:
        return np.asarray(np.load(folder / "image.npy")[None] / np.float32(STORED_SCALE))

    def load_labels(folder: Path) -> np.ndarray:
        return np.asarray(np.load(folder / "labels.npy")[None])

    def prepare() -> Callable[[int], object]:
        chain = Compose(
            [
                Lambdad("image", load),
                Lambdad("labels", load_labels),
                RandSpatialCropd(("image", "labels"), (window,) * 3, random_size=False),
            ]
        )
        data = [{"image": folder, "labels": folder} for folder in folders]
        cached = CacheDataset(data, chain, cache_rate=1.0, num_workers=1, progress=False)
        order = np.random.default_rng(1).integers(len(folders), size=100_000)
        return lambda number: cached[int(order[number])]

    return prepare


def _memory_mb() -> dict[str, float]:
    return {name: status_mb(name) for name in ("VmRSS", "RssAnon")}


if __name__ == "__main__":
    main()
