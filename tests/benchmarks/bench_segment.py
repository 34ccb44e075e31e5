"""Peak memory and stages of the whole of ``pacs-bridge segment``, by length of the series.

``python tests/benchmarks/bench_segment.py [--slices 397 1600] [--spacing 1.5] [--both]
[--json FILE]``

A noisy cylinder of tissue, 512 x 512 pixels, written as DICOM; random weights in the published
shape, imported as a user would. The command runs in a process of its own; stages and peak
memory are those that its report tells. A verified LABELMAP is what counts as done; ``--both``
measures the shortest series once more with a verified BINARY besides, which is what the command
writes if it is not told. Each is measured once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[100])
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--options", default="--kind labelmap", help="more options of segment")
    parser.add_argument("--both", action="store_true", help="BINARY as well, once")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, (options.slices[0], options.matrix, options.matrix))
        return
    rows = []
    print(f"{'slices':>6} {'peak GB':>8} {'int16 GB':>8} {'total s':>8}  stages, s")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        import_weights(models, options.spacing)
        works = [(slices, options.options.split()) for slices in options.slices]
        if options.both:
            works.append((min(options.slices), ["--kind", "binary", "--kind", "labelmap"]))
        for slices, asked in works:
            row = measure(Path(folder), models, slices, options.matrix, asked)
            rows.append(row)
            print(
                f"{slices:6} {row['peak_gb']:8.2f} {row['volume_gb']:8.2f} {row['total_s']:8.1f}"
                f"  {row['kinds']}: {row['stages']}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def import_weights(models: Path, spacing_mm: float) -> None:
    """Random weights in the published shape, in a store."""
    import torch

    from inference.model_import import import_published
    from inference.model_store import ModelStore
    from inference.network import PUBLISHED_NETWORK, build_network

    torch.manual_seed(1)
    weights = build_network(PUBLISHED_NETWORK).state_dict()
    head = weights["conv_final.2.conv.weight"]
    weights["conv_final.2.conv.weight"] = head - head.mean(dim=1, keepdim=True)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(weights, file.name)
        import_published(
            Path(file.name), ModelStore(models), spacing_mm=spacing_mm, allow_unknown=True
        )


def measure(
    folder: Path, models: Path, slices: int, matrix: int, options: list[str]
) -> dict[str, object]:
    """Segment one series, which is written first, and read the report."""
    series = folder / f"ct{slices}"
    if not series.exists():
        shape = ("--slices", str(slices), "--matrix", str(matrix))
        subprocess.run([sys.executable, __file__, "--write", series, *shape], check=True)
    out = Path(tempfile.mkdtemp(dir=folder))
    (name,) = [path.name for path in models.iterdir() if path.is_dir()]
    command = [sys.executable, "-m", "pacs_bridge", "segment", series, "--out", out, "--quiet"]
    command += ["--models", models, "--model", name, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((out / "report.json").read_text())
    stages = report["timings_s"]
    return {
        "slices": slices,
        "peak_gb": report["peak_memory_bytes"] / 1e9,
        "volume_gb": slices * matrix * matrix * 2 / 1e9,
        "kinds": " and ".join(each["kind"] for each in report["stacks"][0]["outputs"]),
        "total_s": sum(stages.values()),
        "stages": stages,
        "execution": report["model"]["execution"],
        "parameters": report["model"]["parameters"],
    }


def write(folder: Path, shape: tuple[int, int, int]) -> None:
    """A cylinder of tissue in air, planes 1.5 mm apart, pixels of 0.84 mm."""
    from dicom_seg.synthetic.acquisition import stack
    from dicom_seg.synthetic.options import PixelFormat, SeriesOptions
    from dicom_seg.synthetic.series import write_ct_series
    from inference.volume import Volume

    rng = np.random.default_rng(7)
    y, x = np.indices(shape[1:]) / shape[1] - 0.5
    plane = np.where(np.hypot(x, y * 1.3) < 0.42, 40, -1000)
    hu = np.empty(shape, np.int16)
    for z in range(shape[0]):
        hu[z] = np.clip(plane + rng.normal(0, 12, shape[1:]), -1024, 3071)
    options = SeriesOptions(
        pixels=PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),))
    )
    write_ct_series(Volume(hu, stack(shape, (1.5, 0.84, 0.84))), folder, options)


if __name__ == "__main__":
    main()
