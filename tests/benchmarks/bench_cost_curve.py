"""What a longer series costs: all but the network's convolutions, 100 to 1,600 slices.

``python tests/benchmarks/bench_cost_curve.py [--slices 100 200 ...] [--matrix 512]
[--spacing 1.5] [--runs R] [--json FILE]`` prints a table with the best of the runs and, last, the
power of the length that the time grows with (1 is linear) and what ``beyond`` grew by between the
last two lengths.

Each length is a process of its own that reads a DICOM series, finds the body, takes the engine's
own way through it, brings the labels to the source's planes, writes a LABELMAP and verifies it.
The engine's way is ``inference.sliding_window.segment_scan`` in the arithmetic that the machine
does fast: slabs, windows of 96 voxels, their 32 features blended, a last layer of 105 classes,
labels as they come. Of the network only the first convolution is there, which takes a mean, and
the last layer makes two structures of it; the other convolutions, and the constant memory of
their features, are what is missing.

``beyond`` is peak memory less the imports, the int16 volume and the uint8 labels on both grids,
which grow by their nature: what remains should not grow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from bench_reading import write
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

FEATURES, CLASSES = 32, 105
STAGES = ("read", "label", "place", "write", "verify")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 200, 400, 800, 1600])
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--spacing", type=float, default=1.5)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.make:
        write(options.make, (options.slices[0], options.matrix, options.matrix), "EXPLICIT_LITTLE")
    elif options.read:
        print(json.dumps(measure(options.read, options.spacing)))
    else:
        curve(options)


def curve(options: argparse.Namespace) -> None:
    """One line a length; the best of the runs."""
    print(f"{'slices':>6} {'s':>7} {'ms/slice':>8} {'peak MB':>8} {'beyond MB':>9}  stages, s")
    rows, seconds, beyond_mb = [], [], []
    for slices in options.slices:
        common = [sys.executable, __file__, "--matrix", str(options.matrix)]
        common += ["--spacing", str(options.spacing), "--slices", str(slices)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*common, "--make", folder], check=True)
            found = []
            for _ in range(options.runs):
                done = subprocess.run(
                    [*common, "--read", folder], check=True, stdout=subprocess.PIPE, text=True
                )
                found.append(json.loads(done.stdout.splitlines()[-1]))
        best = min(found, key=lambda run: run["s"])
        seconds.append(best["s"])
        beyond_mb.append(min(run["beyond_mb"] for run in found))
        stages = " ".join(f"{stage} {best[stage]:.2f}" for stage in STAGES)
        print(
            f"{slices:6} {best['s']:7.2f} {1e3 * best['s'] / slices:8.1f} {best['peak_mb']:8.0f}"
            f" {beyond_mb[-1]:9.0f}  {stages}",
            flush=True,
        )
        work = f"{options.matrix} x {options.matrix} x {slices}, all but the network's convolutions"
        rows.append(
            Row(
                "cost curve",
                work,
                Unit.SECONDS,
                best["s"],
                ours_peak_mb=beyond_mb[-1],
                rounds=options.runs,
            )
        )
    if len(seconds) > 1:
        power = np.polyfit(np.log(options.slices), np.log(seconds), 1)[0]
        print(f"time grows with the length to the power of {power:.2f}")
        few, many = options.slices[-2:]
        print(f"beyond grew by {beyond_mb[-1] - beyond_mb[-2]:.0f} MB from {few} to {many} slices")
    write_rows(options.json, rows)


def measure(folder: Path, spacing_mm: float) -> dict[str, float]:
    """The path of one series in this process."""
    from dicom_seg.provenance import SourceInstance
    from dicom_seg.read.reader import read_stack
    from dicom_seg.read.series import examine_series
    from dicom_seg.segmentation import Encoding, SegKind, SegRequest, write_segmentation
    from dicom_seg.verification import verify_segmentation
    from inference.engine.heap import keep_heap
    from inference.engine.network_scan import NetworkScan
    from inference.identity import SegmenterIdentity
    from inference.intensity import ROBUST_INTENSITY
    from inference.network_grid import NetworkGrid
    from inference.preprocessing import labels_to_source

    assert keep_heap()  # as the command does
    split = cheap_network()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before_mb, laps = status_mb("VmRSS"), [time.perf_counter()]
    (plan,) = examine_series(sorted(folder.iterdir())).stacks
    volume = read_stack(plan).volume
    laps.append(time.perf_counter())
    grid = NetworkGrid.covering(volume.geometry, spacing_mm)
    labels = labelled(NetworkScan.of(volume, grid, ROBUST_INTENSITY), split)
    laps.append(time.perf_counter())
    placed = labels_to_source(grid.network_view(labels), grid)
    laps.append(time.perf_counter())
    identity = SegmenterIdentity("bench", "1", "0" * 64, True, "benchmark", (), "benchmark")
    sources = tuple(SourceInstance(row.sop_instance_uid, "") for row in plan.table.rows)
    request = SegRequest(
        SegKind.LABELMAP, identity, datetime(2026, 11, 22), encoding=Encoding.RLE, sources=sources
    )
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "seg.dcm"
        write_segmentation(placed, plan, request, path)
        laps.append(time.perf_counter())
        verify_segmentation(path, placed, plan, request)
        laps.append(time.perf_counter())
    peak_mb = status_mb("VmHWM") - before_mb
    grown_mb = (volume.hu.nbytes + labels.nbytes + placed.labels.nbytes) / 1e6
    stages = dict(zip(STAGES, np.diff(laps).tolist(), strict=True))
    return stages | {"s": laps[-1] - laps[0], "peak_mb": peak_mb, "beyond_mb": peak_mb - grown_mb}


def labelled(scan: object, split: object) -> np.ndarray:
    """Two structures, window by window, through the engine."""
    from inference.engine.arithmetic import fast_windows
    from inference.engine.network_scan import NetworkScan
    from inference.engine.plan import plan_windows
    from inference.engine.region import Region
    from inference.engine.split_network import SplitNetwork
    from inference.sliding_window import segment_scan

    assert isinstance(scan, NetworkScan)
    assert isinstance(split, SplitNetwork)
    spec = fast_windows("cpu")
    plan = plan_windows(scan.shape, spec, split.features, Region.body(scan))
    labels = np.zeros(scan.shape, np.uint8)
    segment_scan(split, scan, plan, labels)
    return labels


def cheap_network() -> object:
    """The published network's first convolution as a mean, and a last layer of its size.

    Tissue becomes liver, its border, where values lie between air and tissue, spleen.
    """
    import torch

    from inference.engine.arithmetic import fast_windows
    from inference.engine.split_network import SplitNetwork

    class Mean(torch.nn.Module):
        """Every feature is the mean of 27 voxels."""

        def __init__(self) -> None:
            super().__init__()
            self.convInit = torch.nn.Conv3d(1, FEATURES, 3, padding=1, bias=False)
            torch.nn.init.constant_(self.convInit.weight, 1 / 27)
            self.conv_final = torch.nn.Identity()

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.conv_final(self.convInit(window))
            return features

    weight, bias = torch.zeros(CLASSES, FEATURES), torch.full((CLASSES,), -4.0)
    background, spleen, liver = 0, 1, 5
    for structure, slope, offset in ((background, 0, 0), (spleen, 1, 0.3), (liver, 2, 0)):
        weight[structure], bias[structure] = slope / FEATURES, offset
    return SplitNetwork(Mean(), weight, bias).to(torch.device("cpu"), fast_windows("cpu"))


if __name__ == "__main__":
    main()
