"""The whole way: DICOM folder to verified Segmentation, against the published NIfTI to NIfTI.

``python tests/benchmarks/bench_whole.py [--slices 397] [--matrix 512] [--spacings 3.0 1.5]
[--windows N] [--json FILE]`` prints a table. Ours is ``pacs-bridge segment``, as its report tells;
theirs are the published transforms, MONAI's inferer, arg max, Invertd and SaveImage in fp32.
Both take random weights in the published shape and the same noisy cylinder.

Where the published logits take more than ``--logits-gb``, the network runs on ``--windows`` of the
windows only and their time is multiplied; blending and arg max are then left out in its favour.
Its softmax, which nothing needs, is left out always. Peak memory is that of the whole process.
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
from bench_reading import memory_mb
from bench_segment import import_weights
from bench_segment import measure as segment
from row import Row, Unit, add_json_option, write_rows

WINDOW = 96
OVERLAP = 0.25
CLASSES = 105
BYTES_A_VOXEL = 4 * (CLASSES + 1)  #: logits and the sum of weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--spacings", type=float, nargs="+", default=[3.0, 1.5])
    parser.add_argument("--windows", type=int, default=3, help="of the published, to multiply")
    parser.add_argument("--logits-gb", type=float, default=8.0)
    parser.add_argument("--published", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.published:
        print(json.dumps(published(options.published, options)))
        return
    rows = []
    print(
        f"{'mm':>4} {'ours s':>8} {'theirs s':>8} {'ratio':>6} {'MB':>6} {'its MB':>7}  stages, s"
    )
    with tempfile.TemporaryDirectory() as folder:
        for spacing_mm in options.spacings:
            rows.append(compare(Path(folder) / f"{spacing_mm}", spacing_mm, options))
    write_rows(options.json, rows)


def compare(folder: Path, spacing_mm: float, options: argparse.Namespace) -> Row:
    """One spacing: ours, then theirs."""
    import SimpleITK as sitk

    folder.mkdir()
    import_weights(folder / "models", spacing_mm)
    ours = segment(
        folder, folder / "models", options.slices, options.matrix, ["--kind", "labelmap"]
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / f"ct{options.slices}")))
    sitk.WriteImage(reader.Execute(), str(folder / "ct.nii.gz"))
    command = [sys.executable, __file__, "--published", folder / "ct.nii.gz"]
    command += ["--spacings", str(spacing_mm), "--windows", str(options.windows)]
    command += ["--logits-gb", str(options.logits_gb)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    row = Row(
        "whole way",
        f"{options.matrix} x {options.matrix} x {options.slices} at {spacing_mm} mm",
        Unit.SECONDS,
        float(str(ours["total_s"])),
        "published chain, fp32",
        sum(theirs["stages"].values()),
        1000 * float(str(ours["peak_gb"])),
        None if theirs["extrapolation"] else theirs["peak_mb"],
        theirs["extrapolation"],
    )
    print(
        f"{spacing_mm:4} {row.ours:8.2f} {row.theirs:8.2f} {row.ratio:6.2f} {row.ours_peak_mb:6.0f}"
        f" {theirs['peak_mb']:7.0f}  {row.extrapolation} {theirs['stages']} {ours['stages']}",
        flush=True,
    )
    return row


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
        labels, how = infer(network, data["image"][None], options)
    lap("infer")
    if how:
        count = window_count(data["image"].shape[1:])
        stages["infer"] *= count / min(options.windows, count)
    data["pred"] = MetaTensor(labels, meta=data["image"].meta)
    inverse = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=True)
    found = inverse(data)["pred"]
    lap("invert")
    SaveImage(nifti.parent / "out", output_dtype=np.uint8, print_log=False)(found)
    lap("save")
    return {"stages": stages, "extrapolation": how, "peak_mb": memory_mb("VmHWM")}


def infer(network: object, image: object, options: argparse.Namespace) -> tuple[object, str]:
    """Labels, or zeros after some of the windows; and how much was left out."""
    import torch
    from monai.inferers import SlidingWindowInferer

    assert isinstance(network, torch.nn.Module)
    assert isinstance(image, torch.Tensor)
    logits_gb = image[0, 0].numel() * BYTES_A_VOXEL / 1e9
    if logits_gb <= options.logits_gb:
        inferer = SlidingWindowInferer(
            [WINDOW] * 3, 1, OVERLAP, mode="gaussian", padding_mode="replicate"
        )
        return inferer(image, network).argmax(dim=1).to(torch.float32), ""
    count = window_count(image.shape[2:])
    some = min(options.windows, count)
    for _ in range(some):
        network(torch.randn(1, 1, WINDOW, WINDOW, WINDOW))
    how = f"{some} of {count} windows, no blending: its logits take {logits_gb:.0f} GB"
    return torch.zeros(image.shape[1:]), how


def window_count(shape: tuple[int, ...], window: int = WINDOW) -> int:
    """Of the published tiling."""
    from monai.data.utils import dense_patch_slices

    padded = tuple(max(size, window) for size in shape)
    step = (int(window * (1 - OVERLAP)),) * 3
    return len(dense_patch_slices(padded, (window,) * 3, step))


if __name__ == "__main__":
    main()
