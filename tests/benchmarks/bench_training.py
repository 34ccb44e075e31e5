"""Training: steps a second and peak memory of our recipe against the published one.

``python tests/benchmarks/bench_training.py [--window N] [--batch 4] [--steps 3] [--rounds 2]
[--volumes 4] [--edge 160] [--json FILE]`` prints a table, and the ratios of the published
recipe to ours. Both train the published network on the same NIfTI files on the same device,
each run in a process of its own, turn and turn about, so that a busy machine disturbs both
alike.

- ``published``: the bundle's transforms, CacheDataset, DiceCELoss, AdamW and a batch at once,
  written down as MONAI calls.
- ``same``: the same recipe (uniform windows, the same loss over every voxel and class, AdamW)
  by this project's loop.
- ``ours``: the recipe of ``configs/train_3.0mm.toml`` with its augmentation.

Windows have the published edge of 96 voxels where there is CUDA, else 48: on a CPU the published
recipe takes some 12 GB at 96. The first step of a process is not timed. Peak memory is that of
the process from its start, and of the device where there is CUDA.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from process_memory import peak_mb
from row import Row, Unit, add_json_option, write_rows

CHAINS = ("published", "same", "ours")
SPACING_MM = 3.0
PRESET = Path(__file__).resolve().parents[2] / "configs" / "train_3.0mm.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    size = 96 if torch.cuda.is_available() else 48
    parser.add_argument("--window", type=int, default=size, help="edge, voxels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="timed, of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--edge", type=int, default=160, help="of a volume, voxels")
    parser.add_argument("--run", nargs=2, metavar=("CHAIN", "FOLDER"), help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options.run[0], Path(options.run[1]), options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), options.volumes, options.edge)
        found: dict[str, list[dict[str, float]]] = {chain: [] for chain in CHAINS}
        for _ in range(options.rounds):
            for chain in CHAINS:
                command = [sys.executable, __file__, *sys.argv[1:], "--run", chain, folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[chain].append(json.loads(done.stdout.splitlines()[-1]))
    print_table(found, options)


def print_table(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """The best of all rounds, absolute and as a ratio to the published recipe."""
    size = f"batch {options.batch} x {options.window}^3"
    print(
        f"{size}, {options.volumes} volumes of {options.edge}^3, {torch.get_num_threads()} threads"
    )
    print(f"{'recipe':10} {'s/step':>8} {'peak GB':>8} {'device GB':>9} {'speed':>6} {'memory':>7}")
    best = {
        chain: {key: min(run[key] for run in runs) for key in runs[0]}
        for chain, runs in found.items()
    }
    reference = best["published"]
    memory = "device_gb" if reference["device_gb"] else "peak_gb"
    for chain, row in best.items():
        print(
            f"{chain:10} {row['s']:8.3f} {row['peak_gb']:8.2f} {row['device_gb']:9.2f}"
            f" {reference['s'] / row['s']:6.2f} {row[memory] / reference[memory]:7.2f}"
        )
    write_rows(
        options.json, [comparison(chain, best, size) for chain in CHAINS if chain != "published"]
    )


def comparison(chain: str, best: dict[str, dict[str, float]], size: str) -> Row:
    """A recipe against the published one."""
    ours, theirs = best[chain], best["published"]
    recipe = {"same": "a step of the published recipe", "ours": "a step of our recipe"}[chain]
    memory = "device_gb" if theirs["device_gb"] else "peak_gb"
    peaks = (1000 * ours[memory], 1000 * theirs[memory])
    work = f"{recipe}, {size}"
    return Row("training", work, Unit.SECONDS, ours["s"], "MONAI bundle", theirs["s"], *peaks)


def make_dataset(folder: Path, volumes: int, edge: int) -> None:
    """Scans of boxes in a body, 3 mm, all 104 structures somewhere."""
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number in range(volumes):
        labels = np.zeros((edge,) * 3, dtype=np.uint8)
        for structure in range(1, 105):
            low = rng.integers(edge // 8, edge - edge // 4, 3)
            labels[tuple(slice(x, x + edge // 10) for x in low)] = structure
        hu = rng.normal(-1000, 20, labels.shape)
        body = (slice(edge // 10, -edge // 10),) * 3
        hu[body] = 5.0 * labels[body] + rng.normal(0, 20, labels[body].shape)
        affine = np.diag([SPACING_MM] * 3 + [1.0])
        for kind, values in (("imagesTr", hu.astype(np.int16)), ("labelsTr", labels)):
            nib.save(nib.Nifti1Image(values, affine), folder / kind / f"case{number}.nii.gz")


def measure(chain: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds a step and peak memory of one chain in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    make: Callable[..., Iterator[None]] = published if chain == "published" else our_loop
    steps = make(folder, options, device, chain)
    next(steps)
    started = time.perf_counter()
    for _ in range(options.steps):
        next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    device_bytes = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {
        "s": (time.perf_counter() - started) / options.steps,
        "peak_gb": peak_mb() / 1000,
        "device_gb": device_bytes / 1e9,
    }


def published(
    folder: Path, options: argparse.Namespace, device: torch.device, _chain: str
) -> Iterator[None]:
    """The bundle's train.json as plain calls."""
    from monai import transforms as mt
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss

    from inference.network import build_network

    both = ["image", "label"]
    chain = mt.Compose(
        [
            mt.LoadImaged(both),
            mt.EnsureChannelFirstd(both),
            mt.Orientationd(both, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            mt.Spacingd(both, pixdim=[SPACING_MM] * 3, mode=["bilinear", "nearest"]),
            mt.NormalizeIntensityd("image", nonzero=True),
            mt.CropForegroundd(
                both, source_key="image", margin=10, k_divisible=[options.window] * 3
            ),
            mt.GaussianSmoothd("image", sigma=0.4),
            mt.ScaleIntensityd("image", minv=-1.0, maxv=1.0),
            mt.EnsureTyped(both),
            mt.RandSpatialCropd(both, roi_size=[options.window] * 3, random_size=False),
        ]
    )
    files = [
        {"image": str(path), "label": str(folder / "labelsTr" / path.name)}
        for path in sorted((folder / "imagesTr").iterdir())
    ]
    # the same number of volumes in memory whatever the share; the published rate is 0.4
    dataset = CacheDataset(files * options.batch, chain, cache_num=len(files), progress=False)
    loader = DataLoader(dataset, batch_size=options.batch, shuffle=True, num_workers=0)
    network = build_network().to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    low = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    while True:
        for batch in loader:
            image, label = batch["image"].to(device), batch["label"].to(device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=low):
                loss = loss_function(network(image), label)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            yield None


def our_loop(
    folder: Path, options: argparse.Namespace, device: torch.device, chain: str
) -> Iterator[None]:
    """This project's loop, without its journal: the published side writes none either."""
    from inference.network import build_network
    from training.augmentation.settings import NO_AUGMENTATION
    from training.case_cache import cache_pairs
    from training.dataset import DatasetFolder
    from training.feed import feed
    from training.patches import PatchSource
    from training.plan import published_plan
    from training.preset import load_preset
    from training.state import TrainingState
    from training.update import Arithmetic, update

    preset = load_preset(PRESET)
    sizes = {"batch": options.batch, "window": options.window, "early_window": options.window}
    plan, augmentation = dataclasses.replace(preset.plan, **sizes), preset.augmentation
    if chain == "same":
        plan, augmentation = published_plan(1000, options.batch, options.window), NO_AUGMENTATION
    pairs = DatasetFolder(folder).training_pairs()
    cases = cache_pairs(pairs, preset.case, folder / "cases", 1, lambda _line: None)
    state = TrainingState.start(build_network(), plan, device)
    source = PatchSource(cases, 1, plan, augmentation)
    for patches in feed(source.draw, plan, 0):
        update(state, patches, plan, Arithmetic())
        state.step += 1
        yield None


if __name__ == "__main__":
    main()
