"""The engine against the published chain: time of a window, of whole scans, and peak memory.

``python tests/benchmarks/bench_engine.py [--rounds N] [--small] [--json FILE]
[--parts windows,3mm,1.5mm,body-3mm,body-1.5mm]``

Weights are random (seeded) in the published shape. ``windows`` times the network on one window
of 96 voxels: the published chain's network in fp32 as MONAI runs it, and ours; each variant is
a process of its own, and they take turns, so that a busy machine is busy for all. ``3mm`` runs
144 x 144 x 199 voxels through MONAI's own inferer and arg max and through ours, also in turns.
``1.5mm`` runs 287 x 287 x 397 through ours alone: the published chain needs 14 GB for its
logits there, so its time is that of its window times its windows, and said to be so.
``body-3mm`` and ``body-1.5mm`` are the whole segmenter (resampling, network, labels on the source's
planes) on a synthetic patient of that size, with and without the air around the body; they are
held against the published network alone, which computes the air as well.
Every variant of every part is measured ``--rounds`` times; seconds are medians.
``--small`` shows that everything runs; its figures say nothing.
Peak memory is the high-water mark of the process that did the work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from process_memory import peak_mb

#: (z, y, x) of the whole scans, voxels.
SHAPES = {"3mm": (199, 144, 144), "1.5mm": (397, 287, 287)}
SMALL_SHAPES = {"3mm": (40, 36, 36), "1.5mm": (80, 72, 72)}
WINDOW, SMALL_WINDOW = 96, 32
PLANES, SMALL_PLANES = 397, 24
VARIANTS = ("published", "fp32", "fp32-heap", "bf16", "bf16-heap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="windows,3mm")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--serve", nargs=2, metavar=("PART", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = Size.small() if options.small else Size.full()
    if options.serve:
        serve(*options.serve, size)
        return
    rows: list[dict[str, object]] = []
    for part in options.parts.split(","):
        if part == "windows":
            rows += in_turns(part, VARIANTS, options.rounds, size)
        elif part == "3mm":
            variants = ("published", "fp32-heap", "bf16-heap")
            rows += in_turns(part, variants, options.rounds, size)
        elif part.startswith("body"):
            rows += in_turns(part, ("bf16-heap", "bf16-heap-whole"), options.rounds, size)
        else:
            rows += in_turns(part, ("bf16-heap",), options.rounds, size)
    rows += extrapolated(rows, size)
    table(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Size:
    """Of the works."""

    window: int  #: voxels a side
    shapes: dict[str, tuple[int, int, int]]  #: (z, y, x) of whole scans
    planes: int  #: of the patient

    @classmethod
    def full(cls) -> Size:
        """As published."""
        return cls(WINDOW, SHAPES, PLANES)

    @classmethod
    def small(cls) -> Size:
        """To see that everything runs."""
        return cls(SMALL_WINDOW, SMALL_SHAPES, SMALL_PLANES)

    @property
    def is_full(self) -> bool:
        """Whether figures mean anything."""
        return self.window == WINDOW


def extrapolated(rows: list[dict[str, object]], size: Size) -> list[dict[str, object]]:
    """The published chain at 1.5 mm, from its window."""
    from bench_whole import window_count

    window = next((r for r in rows if (r["part"], r["variant"]) == ("windows", "published")), None)
    if window is None:
        return []
    count = window_count(size.shapes["1.5mm"], size.window)
    seconds = count * float(str(window["s"]))
    row = {"part": "1.5mm", "variant": "published", "s": seconds, "all_s": [], "peak_gb": None}
    row |= {"rounds": window["rounds"]}
    return [row | {"windows": count, "extrapolation": f"{count} times one window"}]


def table(rows: list[dict[str, object]]) -> None:
    """Print medians, with the ratio to the published chain on the same grid."""
    published = {row["part"]: row["s"] for row in rows if row["variant"] == "published"}
    print(
        f"{'part':10} {'variant':16} {'s':>8} {'ratio':>6} {'peak GB':>8} {'windows':>8}"
        f" {'rounds':>6}"
    )
    for row in rows:
        peer = published.get(str(row["part"]).removeprefix("body-"))
        ratio = f"{float(str(peer)) / float(str(row['s'])):6.1f}" if peer else "     -"
        peak = "       -" if row["peak_gb"] is None else f"{row['peak_gb']:8.2f}"
        print(
            f"{row['part']:10} {row['variant']:16} {row['s']:8.2f} {ratio} {peak}"
            f" {row['windows']:8} {row['rounds']:6}  {row.get('extrapolation', '')}"
        )


def in_turns(
    part: str, variants: tuple[str, ...], rounds: int, size: Size
) -> list[dict[str, object]]:
    """Let the variants of one part take turns; medians."""
    times: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    if part == "windows":  # small enough to keep all of them open
        with opened(part, variants, size) as children:
            for turn in range(rounds + 1):
                for variant, child in children.items():
                    found = ask(child)
                    print(part, variant, found, file=sys.stderr, flush=True)
                    if turn:  # the first one warms up
                        times[variant].append(found)
    else:
        for _ in range(rounds):
            for variant in variants:
                with opened(part, (variant,), size) as children:
                    times[variant].append(ask(children[variant]))
                print(part, variant, times[variant][-1], file=sys.stderr, flush=True)
    return [
        {
            "part": part,
            "variant": variant,
            "s": statistics.median(each["s"] for each in found),
            "all_s": [round(each["s"], 3) for each in found],
            "peak_gb": max(each["peak_gb"] for each in found),
            "windows": int(found[0]["windows"]),
            "rounds": len(found),
        }
        for variant, found in times.items()
    ]


@contextmanager
def opened(
    part: str, variants: tuple[str, ...], size: Size
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process a variant, ready to be asked."""
    more = [] if size.is_full else ["--small"]
    children = {
        variant: subprocess.Popen(
            [sys.executable, __file__, "--serve", part, variant, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for variant in variants
    }
    try:
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()
        yield children
    finally:
        for child in children.values():
            child.stdin.close()  # type: ignore[union-attr]
            child.wait()


def ask(child: subprocess.Popen[str]) -> dict[str, float]:
    """Have one process do its work once."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    found: dict[str, float] = json.loads(child.stdout.readline())
    return found


def serve(part: str, variant: str, size: Size) -> None:
    """Do the work whenever a line comes; one line of JSON back."""
    import torch

    torch.manual_seed(1)
    if "heap" in variant:
        from inference.engine.heap import keep_heap

        assert keep_heap()
    work = prepare(part, variant, size)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        windows = work()
        found = {
            "s": time.perf_counter() - start,
            "peak_gb": peak_mb() / 1000,
            "windows": windows,
        }
        print(json.dumps(found), flush=True)


def prepare(part: str, variant: str, size: Size) -> Callable[[], int]:
    """The work of one variant, everything loaded."""
    from inference.network import build_network
    from inference.windows import Precision, WindowSpec

    if part.startswith("body"):
        return patient_work(float(part.removeprefix("body-").removesuffix("mm")), variant, size)
    network = build_network().eval()
    if variant == "published":
        return published_work(part, network, size)
    from inference.engine.plan import plan_windows
    from inference.engine.region import Region
    from inference.engine.split_network import SplitNetwork
    from inference.sliding_window import segment_scan

    precision = Precision.BF16 if variant.startswith("bf16") else Precision.FP32
    spec = WindowSpec(size.window, precision=precision, channels_last=True)
    import torch

    split = SplitNetwork.of_segresnet(network).to(torch.device("cpu"), spec)
    shape = (size.window,) * 3 if part == "windows" else size.shapes[part]
    if part == "windows":
        window = torch.randn(1, 1, *shape).contiguous(memory_format=torch.channels_last_3d)

        def one() -> int:
            with torch.inference_mode():
                split.body(window)
            return 1

        return one
    source = Noise(shape)
    plan = plan_windows(shape, spec, split.features, Region.everything(shape))

    def whole() -> int:
        labels = np.empty(shape, dtype=np.uint8)
        segment_scan(split, source, plan, labels)
        return plan.tiling.window_count

    return whole


def published_work(part: str, network: object, size: Size) -> Callable[[], int]:
    """MONAI's inferer with the published settings, fp32, then arg max; no softmax."""
    import torch
    from monai.inferers.inferer import SlidingWindowInferer

    assert isinstance(network, torch.nn.Module)
    if part == "windows":
        window = torch.randn(1, 1, *(size.window,) * 3)

        def one() -> int:
            with torch.no_grad():
                network(window)
            return 1

        return one
    inferer = SlidingWindowInferer(
        roi_size=[size.window] * 3,
        sw_batch_size=1,
        overlap=0.25,
        mode="gaussian",
        padding_mode="replicate",
    )
    z, y, x = size.shapes[part]
    array = torch.empty(1, 1, x, y, z).uniform_(-1, 1)
    count = [0]

    def counted(window: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        result: torch.Tensor = network(window)
        return result

    def whole() -> int:
        count[0] = 0
        with torch.no_grad():
            inferer(array, counted).argmax(dim=1)
        return count[0]

    return whole


def patient_work(spacing_mm: float, variant: str, size: Size) -> Callable[[], int]:
    """A synthetic patient through the segmenter, labels on its own planes."""
    from inference.engine.arithmetic import fast_windows
    from inference.intensity import ROBUST_INTENSITY
    from inference.manifest import ModelManifest
    from inference.model_store import LoadedModel
    from inference.network import PUBLISHED_NETWORK, build_network
    from inference.segmenter import SegmenterOptions, SegResNetSegmenter
    from inference.synthetic.patient import SyntheticPatient

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
    model = LoadedModel(manifest, build_network(PUBLISHED_NETWORK).state_dict())
    windows = replace(fast_windows("cpu"), window_voxels=size.window)
    options = SegmenterOptions(windows=windows, body_only=not variant.endswith("whole"))
    segmenter = SegResNetSegmenter(model, options)
    volume, _ = SyntheticPatient.from_seed(1).sample(field_of_view(size.planes))
    progress: list[float] = []

    def whole() -> int:
        progress.clear()
        segmenter.segment(volume, progress.append)
        return len(progress) - 2

    return whole


def field_of_view(planes: int) -> object:
    """512 x 512 pixels over 430 mm, planes 1.5 mm apart, from the pelvis up."""
    from inference.geometry import Geometry

    affine = np.array(
        [[0, 0, 0.84, -215.0], [0, 0.84, 0, -215.0], [1.5, 0, 0, -250.0], [0, 0, 0, 1]]
    )
    return Geometry.from_affine(affine, (planes, 512, 512))


class Noise:
    """A scan that is made of noise, box by box."""

    network_axes = (2, 1, 0)

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._rng = np.random.default_rng(1)

    def fill(self, box: tuple[slice, slice, slice], out: np.ndarray) -> None:
        for plane in out:
            plane[...] = self._rng.random(plane.shape, dtype=np.float32) * 2 - 1


if __name__ == "__main__":
    main()
