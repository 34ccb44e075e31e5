"""What the machine can do at best: matrix products, memory, and the operations of one window.

``python tests/benchmarks/bench_peak.py [--size N] [--runs R] [--json FILE]`` prints a table. The
share of its peak that the network reaches is its operations a second over those of the product
in the same precision, measured in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from row import Row, Unit, add_json_option, write_rows

BENCHMARK = "machine"
PRODUCTS = {"fp32": "float32", "bf16": "bfloat16"}
PRODUCT = "matrix product"
WINDOW_WORK = "operations of one 96^3 window of the published network"
#: Of what a row of the engine's window measures: the last layer comes once a voxel there.
BODY_WORK = f"{WINDOW_WORK}, its last layer left out"


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="of a square matrix")
    parser.add_argument("--memory-mb", type=int, default=512, help="that is copied")
    parser.add_argument("--runs", type=int, default=10)
    add_json_option(parser)
    options = parser.parse_args()
    rows = window_rows()
    rows += [product(name, options.size, options.runs) for name in PRODUCTS]
    source = torch.zeros(options.memory_mb * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source).fill_(1)
    copy_s = best_s(lambda: target.copy_(source), options.runs)
    fresh_s = best_s(lambda: torch.empty_like(source).fill_(1), options.runs)
    size = f"{options.memory_mb} MB"
    for work, spent_s in ((f"copy of {size}", copy_s), (f"first touch of {size}", fresh_s)):
        rows.append(Row(BENCHMARK, work, Unit.GB_PER_SECOND, source.nbytes / spent_s / 1e9))
    for row in rows:
        print(f"{row.work:60} {row.ours:10.1f} {row.unit}")
    write_rows(options.json, rows)


def product(name: str, size: int, runs: int) -> Row:
    """Of two square matrices, the best of some runs."""
    import torch

    dtype = getattr(torch, PRODUCTS[name])
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    spent_s = best_s(lambda: torch.mm(left, right, out=out), runs)
    work = f"{PRODUCT} {name}, {size}"
    return Row(BENCHMARK, work, Unit.GFLOP_PER_SECOND, 2 * size**3 / spent_s / 1e9)


def best_s(work: Callable[[], object], runs: int) -> float:
    work()
    spent_s = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        spent_s.append(time.perf_counter() - started)
    return min(spent_s)


def window_rows() -> list[Row]:
    """Additions and multiplications of convolutions, counted and not run."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from inference.engine.split_network import SplitNetwork
    from inference.network import build_network

    def row(work: str, network: torch.nn.Module) -> Row:
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 1, 96, 96, 96))
        return Row(BENCHMARK, work, Unit.GFLOP, counter.get_total_flops() / 1e9)

    with torch.device("meta"):
        network = build_network().eval()
        whole = row(WINDOW_WORK, network)
        return [whole, row(BODY_WORK, SplitNetwork.of_segresnet(network).body)]


if __name__ == "__main__":
    main()
