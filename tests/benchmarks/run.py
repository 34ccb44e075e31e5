"""Every benchmark, one table: ours against others on the same work in the same run.

``python tests/benchmarks/run.py [NAME ...] [--quick] [--keep] [--out FOLDER]
[--totalsegmentator FOLDER]`` runs the scripts one after the other, each in a process of its own,
prints the table and leaves ``bench.json``, ``bench.md``, ``bench.png`` and a log of each script in
the folder, brought up to date after every script. A script that fails is named, the others go on,
and the exit status is 1. With ``--keep``, what the folder holds of other scripts, from the same
machine, stays in the table, so that a run of hours can be made in parts. ``--quick`` shows that
everything works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import bar_chart
import result_table
from machine import Machine
from record import Record, ScriptResult
from row import Row
from suite import SUITE, Benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [benchmark.name for benchmark in SUITE]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; or all")
    parser.add_argument("--quick", action="store_true", help="the smallest works; no figures")
    parser.add_argument("--keep", action="store_true", help="rows of other scripts in FOLDER stay")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="FOLDER")
    parser.add_argument("--totalsegmentator", type=Path, help="folder with its package")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [each for each in SUITE if not options.names or each.name in options.names]
    options.out.mkdir(parents=True, exist_ok=True)
    record = Record(Machine.this(), options.quick)
    path = options.out / "bench.json"
    if options.keep and path.exists():
        before = Record.read(path)
        if not before.same_machine(record):
            parser.error(f"{path} is of another machine, other libraries or other sizes")
        record = Record(record.machine, record.quick, before.scripts)
    for benchmark in chosen:
        more = extra_options(benchmark, options.totalsegmentator)
        found = run(benchmark, options.quick, more, options.out)
        state = "FAILED, see its log" if found.rows is None else f"{len(found.rows)} rows"
        print(f"{found.name:13} {found.seconds:7.1f} s  {state}", file=sys.stderr, flush=True)
        record = record.with_script(found, names)
        save(record, options.out)
    print(result_table.text(record.rows))
    if record.failed:
        sys.exit(f"failed: {', '.join(record.failed)}")


def extra_options(benchmark: Benchmark, totalsegmentator: Path | None) -> Sequence[str]:
    """What only some scripts take."""
    if benchmark.name == "model_chain" and totalsegmentator is not None:
        return ("--totalsegmentator", str(totalsegmentator.resolve()))
    return ()


def run(benchmark: Benchmark, quick: bool, more: Sequence[str], out: Path) -> ScriptResult:
    """Run one script; what it says goes into a log."""
    arguments = [*shlex.split(benchmark.quick if quick else benchmark.full), *more]
    started, begun, commit = datetime.now(UTC), time.perf_counter(), Machine.this().commit
    rows: list[Row] | None = None
    with tempfile.TemporaryDirectory() as folder, (out / f"{benchmark.name}.log").open("w") as log:
        path = Path(folder) / "rows.json"
        command = [sys.executable, str(benchmark.script), *arguments, "--json", str(path)]
        log.write(f"{shlex.join(command[1:-2])}\n")
        log.flush()
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode == 0 and path.exists():
            rows = benchmark.rows(path)
    return ScriptResult(
        benchmark.name,
        started.isoformat(timespec="seconds"),
        round(time.perf_counter() - begun, 1),
        commit,
        None if rows is None else tuple(rows),
    )


def save(record: Record, out: Path) -> None:
    """For machines, for a page, and for the eye."""
    record.write(out / "bench.json")
    said = summary(record)
    (out / "bench.md").write_text(f"{said}\n\n{result_table.markdown(record.rows)}\n")
    compared = [row for row in record.rows if row.benchmark != "machine"]
    bar_chart.draw(compared, said, out / "bench.png")


def summary(record: Record) -> str:
    """Where and when, in a line."""
    machine = record.machine
    fast = [flag for flag in machine.flags if "16" in flag] or ["no bf16 instructions"]
    where = f"{machine.cores} cores of {machine.cpu} ({', '.join(fast)})"
    device = f", {machine.device}" if machine.device else ""
    quick = "Tiny works, figures without meaning. " if record.quick else ""
    days = sorted({script.started[:10] for script in record.scripts})
    commits = dict.fromkeys(script.commit for script in record.scripts)
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{quick}{when}, {where}{device}, commit {', '.join(commits)}"


if __name__ == "__main__":
    main()
