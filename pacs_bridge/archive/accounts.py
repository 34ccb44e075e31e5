"""The account of a plan: every series, by what became of it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planning import is_complete
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.stopwatch import Stage

LEFT_OUT: Final = "left-out"
_OPEN: Final = ("planned", "waiting")
_RECENT: Final = 200
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
#: As the standard's coded strings are: a name has a caret, a comma or a space.
_CODE: Final = re.compile(r"'[A-Z0-9_]{0,16}'|'[0-9.]{1,64}'")

#: A plan takes no result back, and no job: it says why the series would not run again.
_KEPT: Final = ("done", "waiting")
_STATE: Final = (
    "CASE WHEN plan_reason IS NULL OR state IN ('done', 'waiting') THEN state ELSE 'left-out' END"
)
_REASON: Final = "coalesce(plan_reason, reason, '')"


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """One series in the account."""

    number: int
    series_instance_uid: str
    study_instance_uid: str
    source: str
    state: str  #: of ``SeriesState``, or ``left-out``
    reason: str
    detail: str
    instances: int
    planes: int
    source_bytes: int
    findings: tuple[str, ...]
    result: str
    outputs: int
    output_bytes: int
    structures: int
    seconds: Mapping[str, float]
    peak_memory_bytes: int
    model: str
    model_digest: str
    precision: str  #: of the network, as it was made; empty where it is not known
    ended_at: str


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many series have one outcome for one reason."""

    state: str
    reason: str
    series: int
    source_bytes: int


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run of the plan."""

    started_at: str
    seen_at: str
    seconds: float
    model: str
    model_digest: str
    is_own: bool | None  #: whether its own process did the work; None: not known


@dataclass(frozen=True, slots=True)
class Account:
    """A plan as a whole; the counts of ``outcomes`` add up to ``series``."""

    series: int
    source_bytes: int
    outcomes: tuple[OutcomeCount, ...]
    files: Mapping[str, int]  #: of those not used as they are, by reason; of all: ``all``
    folders: int
    unreadable_folders: int
    seconds: Mapping[str, float]  #: by stage, of all series that were looked at
    outputs: int
    output_bytes: int
    structures: int
    findings: Mapping[str, int]  #: series by finding
    models: tuple[tuple[str, str, str, int], ...]  #: name, digest, precision, results
    runs: tuple[RunLine, ...]
    recent_an_hour: float | None  #: series that ended, of late
    planned: int = 0
    waiting: int = 0
    is_plan_complete: bool = True
    stale: int = 0  #: results whose files, model or settings were others at the last run

    @property
    def open(self) -> int:
        """Series that are not over yet."""
        return self.planned + self.waiting

    @property
    def is_finished(self) -> bool:
        """Whether this is the account of a whole plan of which every series is over."""
        return self.is_plan_complete and not self.open

    @property
    def run_seconds(self) -> float:
        """Of all runs together."""
        return sum(run.seconds for run in self.runs)

    @property
    def own_run_seconds(self) -> float | None:
        """Of all runs together; None unless one process at a time did all the work.

        The workers of a service may be many, and have other work: how long the run took that fed
        them says nothing of theirs.
        """
        return self.run_seconds if all(run.is_own for run in self.runs) else None

    @property
    def segment_share(self) -> float | None:
        """Share of the time of all runs in which a series was being segmented.

        That is the whole stage: resampling to the model's grid, the network, and the way of its
        labels back. None where ``own_run_seconds`` is, and without a run.
        """
        seconds = self.own_run_seconds
        return self.seconds.get(Stage.SEGMENT, 0.0) / seconds if seconds else None


@dataclass(slots=True)
class _Sums:
    seconds: dict[str, float] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    models: dict[tuple[str, str, str], int] = field(default_factory=dict)
    outputs: int = 0
    output_bytes: int = 0
    structures: int = 0

    def add(self, line: SeriesLine) -> None:
        for stage, seconds in line.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for finding in line.findings:
            self.findings[finding] = self.findings.get(finding, 0) + 1
        if line.outputs:
            key = (line.model, line.model_digest, line.precision)
            self.models[key] = self.models.get(key, 0) + 1
        self.outputs += line.outputs
        self.output_bytes += line.output_bytes
        self.structures += line.structures


def account_of(plan: PlanFile) -> Account:
    """Everything about a plan; reads every series."""
    sums = _Sums()
    for line in series_lines(plan):
        sums.add(line)
    with plan.read() as connection:
        runs = connection.execute(
            "SELECT started_at, seen_at, seconds, model, model_digest, is_own, recipe FROM runs"
            " ORDER BY id"
        ).fetchall()
        files = dict(
            connection.execute(
                "SELECT reason, count(*) FROM files WHERE reason IS NOT NULL GROUP BY reason"
            ).fetchall()
        )
        all_files = connection.execute("SELECT count(*) FROM files").fetchone()[0]
        folders = connection.execute("SELECT count(*), count(reason) FROM folders").fetchone()
        recent = _recent_an_hour(connection)
    counts = outcome_counts(plan)
    by_state = {state: sum(c.series for c in counts if c.state == state) for state in _OPEN}
    return Account(
        series=sum(count.series for count in counts),
        source_bytes=sum(count.source_bytes for count in counts),
        outcomes=counts,
        files={"all": all_files, **files},
        folders=folders[0],
        unreadable_folders=folders[1],
        seconds={stage: round(sums.seconds[stage], 3) for stage in Stage if stage in sums.seconds},
        outputs=sums.outputs,
        output_bytes=sums.output_bytes,
        structures=sums.structures,
        findings=dict(sorted(sums.findings.items(), key=lambda item: -item[1])),
        models=tuple((*key, number) for key, number in sums.models.items()),
        runs=tuple(_run_line(row) for row in runs),
        recent_an_hour=recent,
        planned=by_state["planned"],
        waiting=by_state["waiting"],
        is_plan_complete=is_complete(plan),
        stale=SeriesBook(plan).stale_results(runs[-1]["recipe"]).count if runs else 0,
    )


def _run_line(row: sqlite3.Row) -> RunLine:
    return RunLine(
        started_at=row["started_at"],
        seen_at=row["seen_at"],
        seconds=row["seconds"],
        model=row["model"],
        model_digest=row["model_digest"],
        is_own=None if row["is_own"] is None else bool(row["is_own"]),
    )


def outcome_counts(plan: PlanFile) -> tuple[OutcomeCount, ...]:
    """How many series have which outcome: by state, the most series first."""
    with plan.read() as connection:  # of the index alone
        rows = connection.execute(
            "SELECT plan_reason, state, reason, count(*), sum(bytes) FROM series"
            " GROUP BY plan_reason, state, reason"
        ).fetchall()
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for plan_reason, state, reason, number, size_bytes in rows:
        is_left_out = plan_reason is not None and state not in _KEPT
        key = (LEFT_OUT if is_left_out else state, plan_reason or reason or "")
        before = sums.get(key, (0, 0))
        sums[key] = (before[0] + number, before[1] + size_bytes)
    counts = [OutcomeCount(*key, *values) for key, values in sums.items()]
    return tuple(sorted(counts, key=lambda each: (each.state, -each.series, each.reason)))


def open_series(plan: PlanFile) -> int:
    """How many series of a plan are not over."""
    return sum(count.series for count in outcome_counts(plan) if count.state in _OPEN)


def recent_an_hour(plan: PlanFile) -> float | None:
    """How many series an hour ended of late; None if that cannot be said."""
    with plan.read() as connection:
        return _recent_an_hour(connection)


def series_lines(plan: PlanFile) -> Iterator[SeriesLine]:
    """Every series, in the order in which the plan met it."""
    last = 0
    while True:
        with plan.read() as connection:
            rows = connection.execute(
                f"SELECT *, {_STATE} AS outcome, {_REASON} AS code FROM series"  # noqa: S608
                " WHERE number > ? ORDER BY number LIMIT 1000",
                (last,),
            ).fetchall()
        if not rows:
            return
        for row in rows:
            yield _line(row)
        last = rows[-1]["number"]


def _without_texts(detail: str) -> str:
    """A detail without what a header says in it, but for a word of code such as ``'MR'``."""
    return _QUOTED.sub(lambda found: found[0] if _CODE.fullmatch(found[0]) else "'...'", detail)


def _line(row: sqlite3.Row) -> SeriesLine:
    made: dict[str, Any] = json.loads(row["made"]) if row["made"] else {}
    findings = dict.fromkeys([*json.loads(row["findings"]), *made.get("findings", ())])
    return SeriesLine(
        number=row["number"],
        series_instance_uid=row["series"],
        study_instance_uid=row["study_instance_uid"],
        source=row["source"],
        state=row["outcome"],
        reason=row["code"],
        detail=_without_texts(row["plan_detail"] if row["plan_reason"] else row["detail"]),
        instances=row["instances"],
        planes=row["planes"],
        source_bytes=row["bytes"],
        findings=tuple(findings),
        result=made.get("result", ""),
        outputs=made.get("outputs", 0),
        output_bytes=made.get("output_bytes", 0),
        structures=made.get("structures", 0),
        seconds=made.get("seconds", {}),
        peak_memory_bytes=made.get("peak_memory_bytes", 0),
        model=made.get("model", ""),
        model_digest=made.get("model_digest", ""),
        precision=made.get("precision", ""),
        ended_at=row["ended_at"] or "",
    )


def _recent_an_hour(connection: sqlite3.Connection) -> float | None:
    rows = connection.execute(
        "SELECT ended_at FROM series WHERE ended_at IS NOT NULL AND state <> 'planned'"
        " ORDER BY ended_at DESC LIMIT ?",
        (_RECENT,),
    ).fetchall()
    if len(rows) < 2:
        return None
    span = datetime.fromisoformat(rows[0][0]) - datetime.fromisoformat(rows[-1][0])
    seconds = span.total_seconds()
    return round(3600 * (len(rows) - 1) / seconds, 1) if seconds > 0 else None
