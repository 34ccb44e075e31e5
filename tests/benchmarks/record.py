"""What a run of the benchmarks found, script by script, as it stands in ``bench.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine_rows import shares_of_peak
from machine import Machine
from row import Row, as_json, from_json


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What one script found.

    Parameters
    ----------
    name, started, seconds
        Of the suite; ISO 8601, UTC; how long it ran.
    commit
        It was measured at, as ``Machine.commit``.
    rows
        None: it failed.
    """

    name: str
    started: str
    seconds: float
    commit: str
    rows: tuple[Row, ...] | None


@dataclass(frozen=True, slots=True)
class Record:
    """All that was found on one machine, in the order of the suite."""

    machine: Machine
    quick: bool
    scripts: tuple[ScriptResult, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Of all scripts; of a full run also what share of the machine's peak was reached."""
        rows = [row for script in self.scripts for row in script.rows or ()]
        return rows if self.quick else [*rows, *shares_of_peak(rows)]  # quick windows are smaller

    @property
    def failed(self) -> list[str]:
        """Names of scripts."""
        return [script.name for script in self.scripts if script.rows is None]

    def with_script(self, found: ScriptResult, order: list[str]) -> Record:
        """This with one more, which takes the place of an earlier one of its name."""
        others = [each for each in self.scripts if each.name != found.name]
        scripts = sorted([*others, found], key=lambda each: order.index(each.name))
        return replace(self, scripts=tuple(scripts))

    def same_machine(self, other: Record) -> bool:
        """Whether both may stand in one table: same processor, cores, device and libraries."""
        mine, its = (replace(each.machine, commit="") for each in (self, other))
        return mine == its and self.quick == other.quick

    def write(self, path: Path) -> None:
        """Write it; ``rows`` are there once more, with their ratios, for who reads no scripts."""
        record = {
            "quick": self.quick,
            "machine": asdict(self.machine),
            "failed": self.failed,
            "scripts": [
                {**asdict(script), "rows": _rows_as_json(script.rows)} for script in self.scripts
            ],
            "rows": [as_json(row) for row in self.rows],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what ``write`` wrote."""
        record = json.loads(path.read_text())
        machine = record["machine"]
        scripts = (
            ScriptResult(
                **{
                    **script,
                    "rows": None
                    if script["rows"] is None
                    else tuple(from_json(row) for row in script["rows"]),
                }
            )
            for script in record["scripts"]
        )
        return cls(
            Machine(**{**machine, "flags": tuple(machine["flags"])}),
            record["quick"],
            tuple(scripts),
        )


def _rows_as_json(rows: tuple[Row, ...] | None) -> list[dict[str, object]] | None:
    return None if rows is None else [as_json(row) for row in rows]
