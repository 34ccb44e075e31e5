"""The ledger of a large site: a million instances of 100,000 series.

``python tests/benchmarks/bench_ledger.py [--series N] [--instances N] [--claims N] [--json FILE]``
fills a ledger on a disk as years of service would and prints what its users wait for: the start
of a service after a crash of the machine, the claim of a job, and what ``pacs-bridge jobs`` asks.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from row import Row, Unit, add_json_option, write_rows

from pacs_bridge.clock import SystemClock
from pacs_bridge.config.bridge import CollectorConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.database import Database, time_text
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import DISPATCHER
from pacs_bridge.receive.collector import Collector

#: Of a hundred jobs; the rest is sent.
STATES = {"ready": 20, "dead": 3, "skipped": 7, "retry": 2, "superseded": 1}
OPEN_SERIES = 50  #: that are being received
CLASS_UID = "1.2.840.10008.5.1.4.1.1.2"
SYNTAX_UID = "1.2.840.10008.1.2.1"


class NextBoot(SystemClock):
    """The machine after it was started again."""

    def boot_id(self) -> str:
        return "another boot"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--instances", type=int, default=10, help="of each series")
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None, help="the disk")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "ledger.sqlite"
        fill(path, options.series, options.instances)
        size_gb = path.stat().st_size / 1e9
        work = f"{options.series} series, {options.series * options.instances} instances"
        print(f"{work}: {size_gb:.2f} GB")
        rows = [
            Row("ledger", f"{name}; {work}", Unit.SECONDS, seconds)
            for name, seconds in measured(path, options.claims)
        ]
    for row in rows:
        print(f"{row.ours * 1000:10.1f} ms  {row.work.partition(';')[0]}")
    write_rows(options.json, rows)


def measured(path: Path, claims: int) -> Iterator[tuple[str, float]]:
    """What is waited for, and seconds."""
    ledger = Ledger.open(path)
    for _ in range(min(claims, 100)):  # under way when the machine goes down
        ledger.jobs.claim("worker", 60.0)
    ledger.close()
    begun_s = time.perf_counter()
    ledger = Ledger.open(path, NextBoot())
    ledger.associations.begin_epoch()
    ledger.jobs.prolong(DISPATCHER, 60.0)
    yield "start after a crash of the machine", time.perf_counter() - begun_s
    yield "death of a worker noted", timed(lambda: ledger.presume_dead("host:1"))
    seconds = sorted(timed(lambda: ledger.jobs.claim("worker", 60.0)) for _ in range(claims))
    yield "claim, median", statistics.median(seconds)
    yield "claim, 99th percentile", seconds[int(0.99 * (len(seconds) - 1))]
    yield (
        "room for no job, asked",
        timed(lambda: ledger.jobs.claim_some(DISPATCHER, 60.0, 1, lambda _priority: False)),
    )
    yield "the last 1000 jobs", best(lambda: ledger.view.jobs())
    yield "states, counted", best(lambda: ledger.view.state_counts())
    yield "waiting jobs, counted", best(lambda: ledger.view.waiting())
    series = f"1.2.{claims}"
    yield (
        "one series with its history",
        best(lambda: (ledger.view.series(series), ledger.view.history(series))),
    )
    with tempfile.TemporaryDirectory() as folder:
        log = JsonLog.open(Path(folder) / "log", IdentityHash(b"bench"), "error")
        config = CollectorConfig(keep_sources_h=0.001, keep_results_h=0.001)
        collector = Collector(ledger, config, (), SystemClock(), log)
        yield "first look of the collector, with retention", timed(collector.look)
        yield "a look of the collector", best(collector.look)
    ledger.close()


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun_s = time.perf_counter()
    call()
    return time.perf_counter() - begun_s


def best(call: Callable[[], object], times: int = 7) -> float:
    """Median seconds of some calls."""
    return statistics.median(timed(call) for _ in range(times))


def fill(path: Path, series_count: int, instance_count: int) -> None:
    """Rows as the ledger itself would have written them, in bulk."""
    ledger = Ledger.open(path)
    rng = random.Random(20261122)
    states = rng.choices(
        [*STATES, "sent"], [*STATES.values(), 100 - sum(STATES.values())], k=series_count
    )
    with ledger.database.write() as connection:
        connection.execute(
            "INSERT INTO associations VALUES (1, 'CT', 'PACSBRIDGE', '10.0.0.1', ?, ?, 'released')",
            ("2026-01-01T00:00:00+00:00",) * 2,
        )
    for begin in range(0, series_count, 5000):
        part = range(begin, min(begin + 5000, series_count))
        _fill_part(ledger.database, part, states, series_count, instance_count)
    ledger.close()


def _fill_part(
    database: Database, part: range, states: list[str], series_count: int, instance_count: int
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    at = {n: time_text(first + timedelta(seconds=100 * n)) for n in part}
    open_from = series_count - min(OPEN_SERIES, series_count // 10)
    facts = json.dumps({"modality": "CT"})
    with database.write() as connection:
        connection.executemany(
            "INSERT INTO series (series_instance_uid, study_instance_uid, patient_key, revision)"
            " VALUES (?, ?, ?, 1)",
            [(f"1.2.{n}", f"1.1.{n // 3}", f"{n:016x}") for n in part],
        )
        connection.executemany(
            "INSERT INTO facts VALUES (?, ?, ?)",
            [(f"1.2.{n}", facts, instance_count) for n in part],
        )
        connection.executemany(
            "INSERT INTO revisions (series_instance_uid, revision, state, activity, first_at,"
            " last_at, state_at) VALUES (?, 1, ?, 1, ?, ?, ?)",
            [
                (f"1.2.{n}", "receiving" if n >= open_from else "ready", at[n], at[n], at[n])
                for n in part
            ],
        )
        connection.executemany(
            "INSERT INTO instances (sop_instance_uid, series_instance_uid, revision,"
            " sop_class_uid, transfer_syntax_uid, digest, data_offset_bytes, size_bytes,"
            " frame_count, path, received_at, association_id)"
            " VALUES (?, ?, 1, ?, ?, ?, 400, 526000, 1, ?, ?, 1)",
            [
                (
                    f"1.2.{n}.{k}", f"1.2.{n}", CLASS_UID, SYNTAX_UID, f"{n * 1000 + k:064x}",
                    f"spool/{n:08d}/{k:06d}.dcm", at[n],
                )
                for n in part
                for k in range(instance_count)
            ],
        )  # fmt: skip
        jobs = [n for n in part if n < open_from]
        connection.executemany(
            "INSERT INTO jobs (id, series_instance_uid, revision, route, model, destinations,"
            " priority, state, reason, created_at, state_at)"
            " VALUES (?, ?, 1, 'route', 'model', '[\"archive\"]', ?, ?, ?, ?, ?)",
            [
                (
                    n + 1, f"1.2.{n}", n % 3, states[n],
                    "too-few-slices" if states[n] in ("dead", "skipped", "retry") else None,
                    at[n], at[n],
                )
                for n in jobs
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO history (at, series_instance_uid, revision, job_id, state)"
            " VALUES (?, ?, 1, ?, ?)",
            [
                (at[n], f"1.2.{n}", n + 1, state)
                for n in jobs
                for state in ("receiving", "quiet", "ready", "claimed", states[n])
            ],
        )
        sent = [n for n in jobs if states[n] == "sent"]
        connection.executemany(
            "INSERT INTO results (job_id, stack, kind, path, sop_class_uid, sop_instance_uid,"
            " series_instance_uid, transfer_syntax_uid, sha256, size_bytes)"
            " VALUES (?, 0, 'labelmap', ?, '1.2.840.10008.5.1.4.1.1.66.7', ?, ?, ?, ?, 1000000)",
            [
                (
                    n + 1, f"results/{n + 1:08d}/0001/labelmap.dcm", f"2.25.{n}", f"2.25.1{n}",
                    SYNTAX_UID, f"{n:064x}",
                )
                for n in sent
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO deliveries (job_id, stack, destination, priority, state, state_at,"
            " sent_sop_instance_uid) VALUES (?, 0, 'archive', ?, 'sent', ?, ?)",
            [(n + 1, n % 3, at[n], f"2.25.{n}") for n in sent],
        )


if __name__ == "__main__":
    main()
