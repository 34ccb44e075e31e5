"""One, two, four workers with a model that sleeps, and an emergency behind a full archive.

``python tests/benchmarks/bench_scale_out.py [--jobs N] [--seconds S] [--behind N]`` hands jobs
over from a ledger through PostgreSQL. Efficiency is the time of one worker over the time of N
workers times N. Then as many workers have ``--behind`` archive jobs before them when one STAT job
is submitted: how long it waits, and how many archive jobs are begun meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from row import Row, Unit, add_json_option, write_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from postgres_peer import PostgresPeer
from stub_site import StubSite, shuffled_series
from stub_worker import StubEvent, Stubs

from pacs_bridge.queue import Priority

WORKERS = (1, 2, 4)
STAT_SERIES = "1.2.840.98.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=1.0, help="a job")
    parser.add_argument("--behind", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="the disk")
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    server = PostgresPeer(is_durable=True)
    try:
        alone_s = 0.0
        for number in WORKERS:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                site = StubSite(Path(folder), server.new_database())
                spent_s = together(site, Path(folder), number, options.jobs, options.seconds)
            alone_s = alone_s or spent_s
            efficiency = alone_s / (number * spent_s)
            print(f"{number} workers: {spent_s:6.2f} s, efficiency {efficiency:.3f}")
            work = f"{options.jobs} jobs of {options.seconds:g} s, {number} workers"
            rows.append(Row("scale_out", work, Unit.SECONDS, spent_s))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            site = StubSite(Path(folder), server.new_database())
            waited = emergency(site, Path(folder), options.behind, options.seconds)
    finally:
        server.remove()
    print(
        f"STAT behind {options.behind}: begun after {waited.seconds:.2f} s; archive jobs before it:"
        f" {waited.on_its_way} begun while it was handed over, {waited.in_its_place} in its place"
    )
    work = f"STAT behind {options.behind} jobs of {options.seconds:g} s, {WORKERS[-1]} workers"
    rows.append(Row("scale_out", work, Unit.SECONDS, waited.seconds))
    write_rows(options.json, rows)
    if waited.in_its_place:
        sys.exit("archive jobs were begun in place of the emergency")


@dataclass(frozen=True, slots=True)
class Waited:
    """How an emergency fared."""

    seconds: float  #: from its submission to its claim
    on_its_way: int  #: archive jobs that were asked for before it stood in the queue
    in_its_place: int  #: that were asked for after it did, and given before it was asked for


def together(site: StubSite, folder: Path, workers: int, jobs: int, seconds: float) -> float:
    """From the first claim to the last job that came back."""
    site.submit(shuffled_series(jobs))
    site.start()
    stubs = Stubs(site.open_queue, folder, workers, site.work(60.0, seconds, is_even=True))
    try:
        while site.open_jobs():
            time.sleep(0.02)
        ended_s = time.monotonic()
    finally:
        stubs.end()
        site.end()
    return ended_s - min(event.at_s for event in stubs.events())


def emergency(site: StubSite, folder: Path, behind: int, seconds: float) -> Waited:
    """Submit a STAT job while all workers are busy, and see what they begin."""
    site.submit(shuffled_series(behind))
    site.start()
    stubs = Stubs(site.open_queue, folder, WORKERS[-1], site.work(60.0, seconds, is_even=True))
    try:
        while len(stubs.events()) < 3 * WORKERS[-1]:
            time.sleep(0.05)
        site.submit([STAT_SERIES], Priority.STAT)
        submitted_s = time.monotonic()
        while not (site.was_handed_over(STAT_SERIES) or _begun(stubs)):
            time.sleep(0.002)
        handed_s = time.monotonic()
        while not _begun(stubs):
            time.sleep(0.02)
    finally:
        stubs.end()
        site.end()
    begun = _begun(stubs)[0]
    before = [
        event
        for event in stubs.events()
        if event.what == "claimed" and submitted_s < event.at_s < begun.at_s
    ]
    in_its_place = sum(event.asked_s > handed_s and event.at_s < begun.asked_s for event in before)
    return Waited(begun.at_s - submitted_s, len(before) - in_its_place, in_its_place)


def _begun(stubs: Stubs) -> list[StubEvent]:
    return [event for event in stubs.events() if event.series == STAT_SERIES]


if __name__ == "__main__":
    main()
