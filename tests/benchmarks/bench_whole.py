"""The whole way: DICOM folder to verified Segmentation, against the published NIfTI to NIfTI.

``python tests/benchmarks/bench_whole.py [--slices 397] [--matrix 512] [--spacings 3.0 1.5]
[--rounds N] [--windows N] [--json FILE]`` prints a table. Ours is ``pacs-bridge segment``, as its
report tells, in two ways: ``body``, the default, which computes no air around the body, and
``whole``, with ``--whole-volume``, which computes the windows that theirs does. Theirs are the
published transforms, MONAI's inferer, arg max, Invertd and SaveImage in fp32. The three take
turns; each is a process of its own, and times are medians. Both sides take random weights in the
published shape and the same noisy cylinder; both have loaded the weights before the clock starts.

The work is not the same at its ends: ours reads a folder of native DICOM, writes a LABELMAP and
verifies it, theirs reads a gzipped NIfTI file and writes one. Windows are told for each side:
ours counted by its plan for that series, theirs as they were run, or are multiplied to.

Where the published logits take more than ``--logits-gb``, the network runs on ``--windows`` of the
windows only and their time is multiplied; blending and arg max are then left out in its favour.
Its softmax, which nothing needs, is left out always. Peak memory is that of the whole process,
the highest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_segment import import_weights
from bench_segment import measure as segment
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

WINDOW = 96
OVERLAP = 0.25
CLASSES = 105
FEATURES = 32  #: before the last layer
BYTES_A_VOXEL = 4 * (CLASSES + 1)  #: logits and the sum of weights
#: Ours, and the options of ``segment`` for it.
WAYS = {"body": [], "whole": ["--whole-volume"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--spacings", type=float, nargs="+", default=[3.0, 1.5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=3, help="of the published, to multiply")
    parser.add_argument("--logits-gb", type=float, default=8.0)
    parser.add_argument("--published", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--planned", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.published:
        print(json.dumps(published(options.published, options)))
        return
    if options.planned:
        print(json.dumps(planned(options.planned, options.spacings[0])))
        return
    rows = []
    print(
        f"{'mm':>4} {'ours':5} {'s':>8} {'windows':>7} {'MB':>6} {'its s':>8} {'windows':>7}"
        f" {'MB':>6} {'ratio':>6} {'rounds':>6}  stages of one round, s"
    )
    with tempfile.TemporaryDirectory() as folder:
        for spacing_mm in options.spacings:
            rows += compare(Path(folder) / f"{spacing_mm}", spacing_mm, options)
    write_rows(options.json, rows)


def compare(folder: Path, spacing_mm: float, options: argparse.Namespace) -> list[Row]:
    """One spacing: ours in both ways and theirs, in turns."""
    folder.mkdir()
    import_weights(folder / "models", spacing_mm)
    ours: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    theirs = []
    size = (options.slices, options.matrix)
    for _ in range(options.rounds):
        for way, more in WAYS.items():
            asked = ["--kind", "labelmap", *more]
            ours[way].append(segment(folder, folder / "models", *size, asked))
        if not theirs:
            write_nifti(folder / f"ct{options.slices}", folder / "ct.nii.gz")
        more = ["--windows", str(options.windows), "--logits-gb", str(options.logits_gb)]
        theirs.append(asked_of(__file__, "--published", folder / "ct.nii.gz", spacing_mm, *more))
    windows = asked_of(__file__, "--planned", folder / f"ct{options.slices}", spacing_mm)
    rows = []
    for way in WAYS:
        row = row_of(way, windows[way], ours[way], theirs)
        work = f"{options.matrix} x {options.matrix} x {options.slices} at {spacing_mm} mm"
        rows.append(replace(row, work=f"{work}, {row.work}"))
        print(
            f"{spacing_mm:4} {way:5} {row.ours:8.2f} {windows[way]:7} {row.ours_peak_mb:6.0f}"
            f" {row.theirs:8.2f} {theirs[0]['windows']:7}"
            f" {max(each['peak_mb'] for each in theirs):6.0f} {row.ratio:6.2f} {row.rounds:6}"
            f"  {row.extrapolation} {ours[way][-1]['stages']} {theirs[-1]['stages']}",
            flush=True,
        )
    return rows


def row_of(way: str, windows: int, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Row:
    """Medians of one of our ways and of theirs; ``work`` is what differs between the two."""
    precision, its_windows = ours[0]["parameters"]["precision"], theirs[0]["windows"]
    how = theirs[0]["extrapolation"]
    return Row(
        "whole way",
        f"{precision}, {way}, {windows} windows, DICOM to LABELMAP;"
        f" its: {its_windows} windows, .nii.gz to .nii.gz",
        Unit.SECONDS,
        statistics.median(each["total_s"] for each in ours),
        "published chain, fp32",
        statistics.median(sum(each["stages"].values()) for each in theirs),
        1000 * max(each["peak_gb"] for each in ours),
        None if how else max(each["peak_mb"] for each in theirs),
        how,
        len(ours),
    )


def asked_of(script: str, what: str, path: Path, spacing_mm: float, *more: str) -> dict[str, Any]:
    """What a process of this script says in its last line."""
    command = [sys.executable, script, what, path, "--spacings", str(spacing_mm), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def write_nifti(series: Path, path: Path) -> None:
    """The same planes for the published chain."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    sitk.WriteImage(reader.Execute(), str(path))


def planned(series: Path, spacing_mm: float) -> dict[str, int]:
    """How many windows each of our ways computes for a series."""
    from dicom_seg.read.reader import read_stack
    from dicom_seg.read.series import examine_series
    from inference.engine.arithmetic import fast_windows
    from inference.engine.network_scan import NetworkScan
    from inference.engine.plan import plan_windows
    from inference.engine.region import Region
    from inference.intensity import ROBUST_INTENSITY
    from inference.network_grid import NetworkGrid

    (stack,) = examine_series(sorted(series.iterdir())).stacks
    volume = read_stack(stack).volume
    grid = NetworkGrid.covering(volume.geometry, spacing_mm)
    body = Region.body(NetworkScan.of(volume, grid, ROBUST_INTENSITY))
    spec = fast_windows("cpu")
    return {
        way: plan_windows(grid.grid_shape, spec, FEATURES, region).tiling.window_count
        for way, region in {"body": body, "whole": None}.items()
    }


def published(nifti: Path, options: argparse.Namespace) -> dict[str, object]:
    """The published chain in this process, stage by stage."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Compose, Invertd, SaveImage
    from monai.transforms import EnsureChannelFirstd as Channel
    from monai.transforms import LoadImaged as Load
    from monai.transforms import NormalizeIntensityd as Normalize
    from monai.transforms import Orientationd as Orientation
    from monai.transforms import ScaleIntensityd as Scale
    from monai.transforms import Spacingd as Spacing

    from inference.network import build_network

    torch.manual_seed(1)
    network, (spacing_mm,) = build_network().eval(), options.spacings
    stages, clock = {}, [time.perf_counter()]

    def lap(name: str) -> None:
        now = time.perf_counter()
        stages[name], clock[0] = round(now - clock[0], 3), now

    ras = (("L", "R"), ("P", "A"), ("I", "S"))
    chain = Compose(
        [
            Load("image"),
            Channel("image"),
            Orientation("image", axcodes="RAS", labels=ras),
            Spacing("image", pixdim=[spacing_mm] * 3, mode="bilinear"),
            Normalize("image", nonzero=True),
            Scale("image", minv=-1.0, maxv=1.0),
        ]
    )
    data = chain({"image": str(nifti)})
    lap("load and transform")
    with torch.no_grad():
        labels, run, how = infer(network, data["image"][None], options)
    lap("infer")
    count = run
    if how:
        count = window_count(data["image"].shape[1:])
        stages["infer"] *= count / run
    data["pred"] = MetaTensor(labels, meta=data["image"].meta)
    inverse = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=True)
    back = inverse(data)["pred"]
    lap("invert")
    SaveImage(nifti.parent / "out", output_dtype=np.uint8, print_log=False)(back)
    lap("save")
    found = {"stages": stages, "windows": count, "extrapolation": how}
    return found | {"peak_mb": status_mb("VmHWM")}


def infer(network: object, image: object, options: argparse.Namespace) -> tuple[object, int, str]:
    """Labels, or zeros after some of the windows; windows run; and how much was left out."""
    import torch
    from monai.inferers import SlidingWindowInferer

    assert isinstance(network, torch.nn.Module)
    assert isinstance(image, torch.Tensor)
    logits_gb = image[0, 0].numel() * BYTES_A_VOXEL / 1e9
    if logits_gb <= options.logits_gb:
        inferer = SlidingWindowInferer(
            [WINDOW] * 3, 1, OVERLAP, mode="gaussian", padding_mode="replicate"
        )
        run = [0]

        def counted(window: torch.Tensor) -> torch.Tensor:
            run[0] += 1
            logits: torch.Tensor = network(window)
            return logits

        return inferer(image, counted).argmax(dim=1).to(torch.float32), run[0], ""
    count = window_count(image.shape[2:])
    some = min(options.windows, count)
    for _ in range(some):
        network(torch.randn(1, 1, WINDOW, WINDOW, WINDOW))
    how = f"{some} of {count} windows, no blending: its logits take {logits_gb:.0f} GB"
    return torch.zeros(image.shape[1:]), some, how


def window_count(shape: tuple[int, ...], window: int = WINDOW) -> int:
    """Of the published tiling."""
    from monai.data.utils import dense_patch_slices

    padded = tuple(max(size, window) for size in shape)
    step = (int(window * (1 - OVERLAP)),) * 3
    return len(dense_patch_slices(padded, (window,) * 3, step))


if __name__ == "__main__":
    main()
