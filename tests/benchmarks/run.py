"""Every benchmark, one table: ours against others on the same work in the same run.

``python tests/benchmarks/run.py [NAME ...] [--quick] [--out FOLDER] [--totalsegmentator FOLDER]``
runs the scripts one after the other, each in a process of its own, prints the table and leaves
``bench.json``, ``bench.md``, ``bench.png`` and a log of each script in the folder. A script that
fails is named, the others go on, and the exit status is 1. ``--quick`` shows that everything
works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import bar_chart
import result_table
from engine_rows import shares_of_peak
from machine import Machine
from row import Row, as_json
from suite import SUITE, Benchmark


@dataclass(frozen=True, slots=True)
class Results:
    """What a run found."""

    started: datetime
    machine: Machine
    quick: bool
    rows: tuple[Row, ...]
    failed: tuple[str, ...]  #: scripts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [benchmark.name for benchmark in SUITE]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; or all")
    parser.add_argument("--quick", action="store_true", help="the smallest works; no figures")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--totalsegmentator", type=Path, help="folder with its package")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [each for each in SUITE if not options.names or each.name in options.names]
    options.out.mkdir(parents=True, exist_ok=True)
    started, rows, failed = datetime.now(UTC), [], []
    for benchmark in chosen:
        begun = time.perf_counter()
        more = extra_options(benchmark, options.totalsegmentator)
        found = run(benchmark, options.quick, more, options.out)
        if found is None:
            failed.append(benchmark.name)
        rows += found or []
        state = "FAILED, see its log" if found is None else f"{len(found)} rows"
        spent_s = time.perf_counter() - begun
        print(f"{benchmark.name:13} {spent_s:7.1f} s  {state}", file=sys.stderr, flush=True)
    if not options.quick:  # whose windows are smaller than the one that is counted
        rows += shares_of_peak(rows)
    results = Results(started, Machine.this(), options.quick, tuple(rows), tuple(failed))
    print(result_table.text(rows))
    save(results, options.out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def extra_options(benchmark: Benchmark, totalsegmentator: Path | None) -> Sequence[str]:
    """What only some scripts take."""
    if benchmark.name == "model_chain" and totalsegmentator is not None:
        return ("--totalsegmentator", str(totalsegmentator.resolve()))
    return ()


def run(benchmark: Benchmark, quick: bool, more: Sequence[str], out: Path) -> list[Row] | None:
    """Rows of one script, or None if it failed; what it says goes into a log."""
    arguments = [*shlex.split(benchmark.quick if quick else benchmark.full), *more]
    with tempfile.TemporaryDirectory() as folder, (out / f"{benchmark.name}.log").open("w") as log:
        path = Path(folder) / "rows.json"
        command = [sys.executable, str(benchmark.script), *arguments, "--json", str(path)]
        log.write(f"{shlex.join(command[1:-2])}\n")
        log.flush()
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or not path.exists():
            return None
        return benchmark.rows(path)


def save(results: Results, out: Path) -> None:
    """For machines, for a page, and for the eye."""
    record = {
        "started": results.started.isoformat(timespec="seconds"),
        "quick": results.quick,
        "machine": asdict(results.machine),
        "failed": results.failed,
        "rows": [as_json(row) for row in results.rows],
    }
    (out / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
    said = summary(results)
    (out / "bench.md").write_text(f"{said}\n\n{result_table.markdown(results.rows)}\n")
    compared = [row for row in results.rows if row.benchmark != "machine"]
    bar_chart.draw(compared, said, out / "bench.png")


def summary(results: Results) -> str:
    """Where and when, in a line."""
    machine = results.machine
    fast = [flag for flag in machine.flags if "16" in flag] or ["no bf16 instructions"]
    where = f"{machine.cores} cores of {machine.cpu} ({', '.join(fast)})"
    device = f", {machine.device}" if machine.device else ""
    quick = "Tiny works, figures without meaning. " if results.quick else ""
    return f"{quick}{results.started:%Y-%m-%d}, {where}{device}, commit {machine.commit}"


if __name__ == "__main__":
    main()
