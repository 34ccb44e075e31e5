"""The queue on PostgreSQL by itself: how fast jobs are claimed and reported.

``python tests/benchmarks/bench_queue.py [--waiting N] [--claims N] [--workers N]`` with commits on
the disk. One process claims, prolongs and completes while ``--waiting`` jobs wait; then several do
so at once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from row import Row, Unit, add_json_option, write_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from postgres_peer import PostgresPeer
from queue_bench import PostgresBench, request_of, result_of
from stub_worker import Stubs, StubWork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=3000)
    parser.add_argument("--claims", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None, help="the disk")
    add_json_option(parser)
    options = parser.parse_args()
    server = PostgresPeer(is_durable=True, folder=options.folder)
    seconds: dict[str, list[float]] = {"claim": [], "heartbeat": [], "complete": []}
    try:
        bench = PostgresBench(server.new_database())
        queue = bench.opener()()  # whose time passes
        for number in range(options.waiting):
            queue.submit(request_of(f"1.2.{number}"))
        for _ in range(options.claims):
            begun_s = time.perf_counter()
            claim = queue.claim("worker", 60.0)
            claimed_s = time.perf_counter()
            assert claim is not None
            queue.heartbeat(claim, 60.0)
            beaten_s = time.perf_counter()
            queue.complete(claim, [result_of()], [])
            seconds["claim"].append(claimed_s - begun_s)
            seconds["heartbeat"].append(beaten_s - claimed_s)
            seconds["complete"].append(time.perf_counter() - beaten_s)
        left = options.waiting - options.claims
        together_s = together(bench, options.workers, left)
        bench.close()
    finally:
        server.remove()
    work = f"{options.waiting} jobs waiting"
    rows = []
    for name, spent in seconds.items():
        median_s, worst_s = statistics.median(spent), sorted(spent)[int(0.99 * (len(spent) - 1))]
        print(f"{name:10} {1000 * median_s:6.1f} ms, 99th percentile {1000 * worst_s:6.1f} ms")
        rows += [
            Row("queue", f"{name}, median; {work}", Unit.SECONDS, median_s),
            Row("queue", f"{name}, 99th percentile; {work}", Unit.SECONDS, worst_s),
        ]
    print(f"{options.workers} workers at once: {left / together_s:.0f} jobs a second")
    work = f"a job, claimed to reported, {options.workers} workers at once"
    write_rows(options.json, [*rows, Row("queue", work, Unit.SECONDS, together_s / left)])


def together(bench: PostgresBench, workers: int, jobs: int) -> float:
    """Seconds until all jobs that are left have ended."""
    with tempfile.TemporaryDirectory() as folder:
        stubs = Stubs(bench.opener(), Path(folder), workers, StubWork(60.0, 0.0))
        try:
            while sum(each.what == "ended" for each in stubs.events()) < jobs:
                time.sleep(0.1)
        finally:
            stubs.end()
        times = [each.at_s for each in stubs.events()]
    return max(times) - min(times)


if __name__ == "__main__":
    main()
