"""Series an hour of ``archive run`` against ``pacs-bridge segment`` once a series.

``python tests/benchmarks/bench_archive.py [--series 100] [--slices 100] [--matrix 256]
[--model synthetic-3mm] [--json FILE]``

Synthetic series: noisy cylinders of tissue, each with a patient of its own. Both ways are
commands in processes of their own, as a user calls them, with the same model and the same
options. Beside the time of all series it is told for what share of the run no series was in the
stage that has the model, its start left out; that stage is the network with the resampling before
and behind it. ``--headers N`` measures ``archive plan`` on N series of
twelve small instances instead; ``--duplicates N`` one of N series that lie in one zip file and
unpacked beside it, and of a quarter as many: the time a file is to be the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from row import Row, Unit, add_json_option, write_rows

_TREE = Path(__file__).parents[1] / "pacs_bridge" / "archive" / "conftest.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--single", type=int, default=0, help="segment so many; 0: all")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--model", default="synthetic-3mm")
    parser.add_argument("--options", default="", help="more options of both commands")
    parser.add_argument("--headers", type=int, default=0, help="measure a plan of so many series")
    parser.add_argument("--duplicates", type=int, default=0, help="so many series, zipped and not")
    parser.add_argument("--folder", type=Path, default=None, help="for the series; default: /tmp")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.duplicates:
            rows = plan_duplicates(Path(folder), options.duplicates)
        elif options.headers:
            rows = [plan_headers(Path(folder), options.headers)]
        else:
            rows = compare(Path(folder), options)
    write_rows(options.json, rows)


def compare(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Both ways on the same series, and how long the model waited."""
    shape = (options.slices, options.matrix, options.matrix)
    for number in range(options.series):
        write(folder / "archive" / f"series{number}", shape, number)
    more = ["--model", options.model, "--quiet", *options.options.split()]
    run = ["--run", folder / "run"]
    plan_s = timed("archive", "plan", *run, folder / "archive", "--quiet")
    run_s = timed("archive", "run", *run, "--out", folder / "out", *more)
    said = bridge("archive", "report", *run, "--json")
    account = json.loads(said.stdout)
    done = {each["state"]: each["series"] for each in account["outcomes"]}
    assert done == {"done": options.series}, done
    several = options.single or options.series
    single_s = 0.0
    for number in range(several):
        series = folder / "archive" / f"series{number}"
        single_s += timed("segment", series, "--out", folder / "single", *more)
    each_s, single_each_s = (plan_s + run_s) / options.series, single_s / several
    print(f"plan {plan_s:.1f} s, run {run_s:.1f} s for {options.series} series of {shape}")
    print(f"archive run: {3600 / each_s:.0f} series an hour, planning and start in it")
    print(f"segment once a series: {3600 / single_each_s:.0f} series an hour")
    print(f"ratio {single_each_s / each_s:.2f}")
    waits = 1 - account["segment_share"]
    print(f"no series in the segment stage (resampling, network) for {waits:.1%} of the run")
    print("stages, s:", account["seconds"])
    z, y, x = shape
    work = f"{options.series} series of {x} x {y} x {z}, {options.model}"
    return [
        Row(
            benchmark="archive",
            work=f"{work}, a series",
            unit=Unit.SECONDS,
            ours=each_s,
            peer="pacs-bridge segment once a series",
            theirs=single_each_s,
            extrapolation="" if several == options.series else f"from {several} series",
        ),
        Row("archive", f"{work}, share of the run without one in its stage", Unit.SHARE, waits),
    ]


def plan_headers(folder: Path, count: int) -> Row:
    """A plan of a mixture with every reason; the second call finds nothing new."""
    tree = tree_in(folder / "archive")
    tree.fill(count)
    run = ["--run", folder / "run"]
    first_s = timed("archive", "plan", *run, folder / "archive", "--quiet")
    said = json.loads(bridge("archive", "report", *run, "--json").stdout)
    found = {(each["reason"] or "run"): each["series"] for each in said["outcomes"]}
    assert found == tree.expected, (found, tree.expected)
    again_s = timed("archive", "plan", *run, "--quiet")
    files = said["files"]["all"]
    print(f"{count} series, {files} files: planned in {first_s:.1f} s, again in {again_s:.1f} s")
    print(f"{1e6 * first_s / files:.0f} us a file on {len(os.sched_getaffinity(0))} processors")
    return Row("archive", f"plan of {count} series, {files} files", Unit.SECONDS, first_s)


def plan_duplicates(folder: Path, count: int) -> list[Row]:
    """Plans of two sizes; each instance lies in a zip file and unpacked beside it."""
    rows = []
    for number in (max(1, count // 4), count):
        place = folder / f"of-{number}"
        tree = tree_in(place / "archive")
        for each in range(number):
            tree.add("run", f"series{each}")
        with zipfile.ZipFile(place / "archive" / "all.zip", "w") as target:
            for path in sorted(tree.root.glob("series*/*")):
                target.write(path, path.relative_to(tree.root))
        run = ["--run", place / "run"]
        seconds = timed("archive", "plan", *run, place / "archive", "--quiet", "--processes", 1)
        said = json.loads(bridge("archive", "report", *run, "--json").stdout)
        files = said["files"]["all"]
        assert said["files"]["duplicate-instance"] == files // 2, said["files"]
        print(f"{number} series, {files} files: {1e6 * seconds / files:.0f} us a file")
        work = f"plan of {files} files, half of them duplicates in a zip file, a file"
        rows.append(Row("archive", work, Unit.SECONDS, seconds / files))
    return rows


def tree_in(root: Path) -> Any:
    """The tree of headers that the tests fill."""
    spec = importlib.util.spec_from_file_location("archive_tree", _TREE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module.ArchiveTree(root)


def timed(*arguments: object) -> float:
    """Seconds of a command."""
    start = time.perf_counter()
    bridge(*arguments)
    return time.perf_counter() - start


def bridge(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``pacs-bridge`` in a process of its own."""
    command = [sys.executable, "-m", "pacs_bridge", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def write(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    """A cylinder of tissue with bones in it, in air; 350 mm wide, planes 3 mm apart."""
    from dicom_seg.synthetic.acquisition import stack
    from dicom_seg.synthetic.options import PixelFormat, SeriesOptions
    from dicom_seg.synthetic.series import write_ct_series
    from inference.volume import Volume

    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[1:]) / shape[1] - 0.5
    plane = np.where(np.hypot(x, y * 1.3) < 0.42, 40, -1000)
    plane[np.hypot(x, y - 0.2) < 0.05] = 700
    hu = np.empty(shape, np.int16)
    for z in range(shape[0]):
        hu[z] = np.clip(plane + rng.normal(0, 12, shape[1:]), -1024, 3071)
    options = SeriesOptions(
        seed=seed + 1, pixels=PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),))
    )
    pixel_mm = 350 / shape[1]
    write_ct_series(Volume(hu, stack(shape, (3.0, pixel_mm, pixel_mm))), folder, options)


if __name__ == "__main__":
    main()
