"""The model chain: time and peak memory of resampling and inference, one process a line.

``python tests/benchmarks/bench_model_chain.py [--slices N] [--matrix M] [--monai] [--infer]
[--totalsegmentator FOLDER] [--json FILE]`` prints a table. ``--monai`` adds the published
transforms on the same volume (several GB); ``--infer`` adds the published network with random
weights, which takes minutes on a CPU. ``--totalsegmentator`` adds its own resampling, imported
from a folder into which ``pip install --no-deps --target FOLDER totalsegmentator joblib`` put
it. Peak memory is what a process took beyond its state with the source volume in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from process_memory import peak_mb
from row import Row, Unit, add_json_option, write_rows

from inference.geometry import Geometry
from inference.volume import Volume

NAMES = ("ours", "monai", "infer", "totalsegmentator")
PEERS = {
    "monai": "MONAI transforms",
    "totalsegmentator": "TotalSegmentator, resampling alone",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--monai", action="store_true", help="the published transforms as well")
    parser.add_argument("--infer", action="store_true", help="the published network as well")
    parser.add_argument("--totalsegmentator", type=Path, help="folder with its package")
    parser.add_argument("--run", nargs=2, metavar=("WHAT", "SPACING"), help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    shape = (options.slices, options.matrix, options.matrix)
    if options.run:
        print(json.dumps(measure(options.run[0], float(options.run[1]), shape)))
        return
    chains = ["ours", *(["monai"] if options.monai else []), *(["infer"] if options.infer else [])]
    environment = os.environ.copy()
    if options.totalsegmentator:
        chains.append("totalsegmentator")
        environment["PYTHONPATH"] = str(options.totalsegmentator)
    found: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'chain':8} {'mm':>4} {'stage':18} {'s':>7} {'cpu s':>7} {'peak GB':>8}")
    for chain in chains:
        for spacing_mm in (1.5, 3.0):
            command = [
                *(sys.executable, __file__, "--run", chain, str(spacing_mm)),
                *("--slices", str(options.slices), "--matrix", str(options.matrix)),
            ]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            for row in json.loads(done.stdout.splitlines()[-1]):
                work = f"{row['stage']} at {spacing_mm} mm"
                found.setdefault(work, {})[chain] = row
                print(
                    f"{chain[:8]:8} {spacing_mm:4} {row['stage']:18} {row['s']:7.2f}"
                    f" {row['cpu_s']:7.2f} {row['peak_gb']:8.2f}"
                )
    size = f"{options.matrix} x {options.matrix} x {options.slices}"
    write_rows(
        options.json,
        [
            comparison(f"{work}, {size}", chains["ours"], chains[peer], PEERS[peer])
            for work, chains in found.items()
            for peer in PEERS
            if peer in chains and "ours" in chains
        ],
    )


def comparison(work: str, ours: dict[str, float], theirs: dict[str, float], peer: str) -> Row:
    """One stage of ours against the same of another."""
    peaks_mb = (1000 * ours["peak_gb"], 1000 * theirs["peak_gb"])
    return Row("resampling", work, Unit.SECONDS, ours["s"], peer, theirs["s"], *peaks_mb)


def measure(chain: str, spacing_mm: float, shape: tuple[int, int, int]) -> list[dict[str, object]]:
    """Run one chain in this process."""
    stages = Stages()
    volume = scan(shape)
    if chain == "monai":
        monai_chain(volume, spacing_mm, stages)
    elif chain == "infer":
        inference_chain(volume, spacing_mm, stages)
    elif chain == "totalsegmentator":
        totalsegmentator_chain(volume, spacing_mm, stages)
    else:
        our_chain(volume, spacing_mm, stages)
    return stages.rows


class Stages:
    """Time and peak memory, stage by stage."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def run(self, name: str, work: Callable[[], object]) -> object:
        """Run one stage; its result."""
        if not self.rows:
            self._start_mb = peak_mb()
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.rows.append(
            {
                "stage": name,
                "s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
                "peak_gb": (peak_mb() - self._start_mb) / 1000,
            }
        )
        return result


def scan(shape: tuple[int, int, int]) -> Volume:
    """Noise in every plane; 0.84 mm pixels, planes 1.5 mm apart."""
    plane = np.random.default_rng(0).integers(-1000, 1500, shape[1:]).astype(np.int16)
    hu: npt.NDArray[np.int16] = np.empty(shape, dtype=np.int16)
    for z in range(shape[0]):
        hu[z] = np.roll(plane, z)
    affine = np.array([[0, 0, 0.84, 0], [0, 0.84, 0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]])
    return Volume(hu, Geometry.from_affine(affine, shape))


def our_chain(volume: Volume, spacing_mm: float, stages: Stages) -> None:
    from inference.preprocessing import NetworkInput, labels_to_source, to_network

    seen = stages.run("to_network", lambda: to_network(volume, spacing_mm))
    assert isinstance(seen, NetworkInput)
    labels = np.zeros(seen.grid.grid_shape, dtype=np.uint8)
    labels[...] = np.arange(labels.shape[2]) % 105
    grid = seen.grid
    del seen
    stages.run("labels_to_source", lambda: labels_to_source(grid.network_view(labels), grid))


def inference_chain(volume: Volume, spacing_mm: float, stages: Stages) -> None:
    from inference.intensity import ROBUST_INTENSITY
    from inference.manifest import ModelManifest
    from inference.model_store import LoadedModel
    from inference.network import PUBLISHED_NETWORK, build_network
    from inference.segmenter import SegResNetSegmenter

    manifest = ModelManifest(
        name="random",
        version="0",
        spacing_mm=spacing_mm,
        intensity=ROBUST_INTENSITY,
        network=PUBLISHED_NETWORK,
        source="random numbers",
        licence="Apache-2.0",
        intended_use="benchmark",
        demonstration=True,
    )
    weights = build_network(PUBLISHED_NETWORK).state_dict()
    segmenter = SegResNetSegmenter(LoadedModel(manifest, weights))
    stages.run("segment", lambda: segmenter.segment(volume))


def totalsegmentator_chain(volume: Volume, spacing_mm: float, stages: Stages) -> None:
    """As its ``nnunet.py`` calls it: cubic there, nearest back; nothing is normalised."""
    import nibabel as nib
    from totalsegmentator.resampling import change_spacing

    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine)[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(volume.hu.T, affine)
    there = stages.run(
        "to_network", lambda: change_spacing(image, spacing_mm, order=3, dtype=np.int32, nr_cpus=1)
    )
    assert isinstance(there, nib.Nifti1Image)
    labels = np.zeros(there.shape, dtype=np.uint8)
    labels[...] = np.arange(labels.shape[2]) % 105
    found = nib.Nifti1Image(labels, there.affine)
    del there
    stages.run(
        "labels_to_source",
        lambda: change_spacing(
            *(found, spacing_mm, image.shape), order=0, dtype=np.uint8, force_affine=affine
        ),
    )


def monai_chain(volume: Volume, spacing_mm: float, stages: Stages) -> None:
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.dictionary import NormalizeIntensityd, ScaleIntensityd
    from monai.transforms.post.dictionary import Invertd
    from monai.transforms.spatial.dictionary import Orientationd, Spacingd

    chain = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd(keys="image", pixdim=[spacing_mm] * 3, mode="bilinear"),
            NormalizeIntensityd(keys="image", nonzero=True),
            ScaleIntensityd(keys="image", minv=-1.0, maxv=1.0),
        ]
    )
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = (lps_to_ras @ volume.geometry.affine)[:, [2, 1, 0, 3]]
    image = MetaTensor(
        torch.from_numpy(volume.hu.T.astype(np.float32))[None], affine=torch.from_numpy(affine)
    )
    data = stages.run("to_network", lambda: chain({"image": image}))
    assert isinstance(data, dict)
    data["pred"] = MetaTensor(torch.zeros_like(data["image"]), meta=data["image"].meta)
    inverse = Invertd(keys="pred", transform=chain, orig_keys="image", nearest_interp=True)
    stages.run("labels_to_source", lambda: inverse(data))


if __name__ == "__main__":
    main()
