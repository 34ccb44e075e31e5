"""An archive handed over to workers that are killed: everything is accounted for.

``python tests/benchmarks/bench_dispatch.py [--jobs N] [--workers N] [--kill-every S]`` fills a
ledger with jobs of an archive and hands them over to workers without a model, through PostgreSQL
with its commits on the disk. At random a worker or the dispatcher itself is killed. In the end the
ledger must hold what becomes of each series, and one delivery for each result; or status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from row import Row, Unit, add_json_option, write_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from postgres_peer import PostgresPeer
from stub_site import StubSite, shuffled_series
from stub_worker import Stubs, destiny


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--folder", type=Path, default=None, help="the disk")
    add_json_option(parser)
    options = parser.parse_args()
    series = shuffled_series(options.jobs)
    wanted = Counter((str(state), reason and str(reason)) for state, reason in map(destiny, series))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        server = PostgresPeer(is_durable=True)
        try:
            site = StubSite(Path(folder), server.url())
            site.submit(series)
            site.start()
            stubs = Stubs(
                site.open_queue, Path(folder), options.workers, site.work(lease_s=2.0, seconds=0.0)
            )
            begun_s = time.monotonic()
            try:
                kill(site, stubs, options.kill_every)
            finally:
                stubs.end()
                site.end()
            elapsed_s = time.monotonic() - begun_s
            found, deliveries = site.account(), site.deliveries()
        finally:
            server.remove()
    print(f"{options.jobs} jobs, {options.workers} workers: {elapsed_s:.1f} s,", end=" ")
    print(f"{stubs.kills} workers and {site.kills} dispatchers killed")
    for (state, reason), number in sorted(found.items(), key=str):
        print(f"{number:8}  {state}  {reason or ''}")
    overhead_s = site.busy_s / options.jobs
    print(f"dispatcher, busy: {1000 * overhead_s:.2f} ms a job; {deliveries} deliveries")
    work = f"{options.jobs} jobs, {options.workers} workers, a kill each {options.kill_every:g} s"
    write_rows(
        options.json,
        [
            Row("dispatch", f"dispatcher, a job; {work}", Unit.SECONDS, overhead_s),
            Row("dispatch", f"all of it, a job; {work}", Unit.SECONDS, elapsed_s / options.jobs),
        ],
    )
    if found != wanted or deliveries != wanted["sending", None] or stubs.ended_twice():
        sys.exit(f"not accounted for: wanted {wanted}, twice {stubs.ended_twice()}")
    print("all accounted for, none twice")


def kill(site: StubSite, stubs: Stubs, every_s: float) -> None:
    """Kill one of them now and then until all jobs have come back."""
    rng = random.Random(20261122)
    next_s = time.monotonic() + every_s
    while site.open_jobs():
        time.sleep(min(0.5, every_s))
        if time.monotonic() < next_s:
            continue
        next_s += every_s
        if rng.random() < 0.2:
            site.kill_dispatcher()
        else:
            stubs.kill_one(rng)


if __name__ == "__main__":
    main()
