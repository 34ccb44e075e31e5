"""The series of a plan: which are to be run, which are at work, and what came of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from inference.reasons import Reason
from pacs_bridge.archive.hidden_patient import HiddenPatient, run_key
from pacs_bridge.archive.plan_file import PlanFile


class SeriesState(StrEnum):
    """Where a series of a plan stands that is to be run."""

    PLANNED = "planned"
    WAITING = "waiting"  #: its job was made, and is not over
    DONE = "done"  #: there is a result, whatever a later plan says of the series
    SKIPPED = "skipped"  #: looked at with its pixels: not for us, with its reason
    REFUSED = "refused"  #: the same: not fit, with its reason
    FAILED = "failed"  #: not the fault of the series, with its reason
    SUPERSEDED = "superseded"  #: something newer of the series took the place of the job


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a series beside its outcome, and what it cost."""

    result: str = ""  #: folder of the result, relative to that of all results
    outputs: int = 0  #: Segmentations
    output_bytes: int = 0
    structures: int = 0
    findings: tuple[Reason, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  #: by stage
    peak_memory_bytes: int = 0
    model: str = ""
    model_digest: str = ""
    precision: str = ""  #: of the network, as it was made


@dataclass(frozen=True, slots=True)
class PlannedSeries:
    """A series as the feeder needs it."""

    number: int
    series: str
    study_instance_uid: str
    source: str
    contents: str
    revision: int | None
    job: int | None
    fed_contents: str = ""  #: what the job was made for, beside what is to be made today
    fed_recipe: str = ""
    is_to_run: bool = True  #: False: planned again since its job was made

    def is_stale(self, recipe: str) -> bool:
        """Whether what its job makes is not what is to be made today."""
        return (self.fed_contents, self.fed_recipe) != (self.contents, recipe)


@dataclass(frozen=True, slots=True)
class StaleResults:
    """How many series have a result that is not of today's files, or of today's recipe."""

    by_files: int
    by_recipe: int  #: of those whose files are the same

    @property
    def count(self) -> int:
        """All of them."""
        return self.by_files + self.by_recipe


@dataclass(frozen=True, slots=True)
class SeriesEnding:
    """How a job of a series ended."""

    state: SeriesState
    reason: Reason | None = None
    detail: str = ""
    made: Made = field(default_factory=Made)


#: Detail of a job that ended since the plan does not want its series any more.
NOT_TO_RUN: Final = "planned again since: it is not to run"
#: A setting of the plan: the ledger in which the jobs are that it knows by their revisions.
LEDGER: Final = "ledger"
#: A setting of the plan: digests of settings by digest of the recipe that they are part of.
RECIPE_SETTINGS: Final = "recipe_settings"
#: A setting of the plan: digests of what results rest on by digest of the recipe, in the same way.
_RECIPE_LASTING: Final = "recipe_lasting"
_BY_FILES: Final = "coalesce(done_contents <> contents, 0)"
#: Limits that only select decide whether there is a result, and change none.
_BY_RECIPE: Final = (
    "coalesce(done_recipe <> :recipe AND (state <> 'done'"
    " OR done_recipe NOT IN (SELECT value FROM json_each(:alike))), 0)"
)
_COLUMNS = (
    "number, series, study_instance_uid, source, contents, revision, job,"
    " coalesce(done_contents, ''), coalesce(done_recipe, ''), plan_reason IS NULL"
)


class SeriesBook:
    """The series.

    Parameters
    ----------
    plan
        That has them.
    """

    def __init__(self, plan: PlanFile) -> None:
        self._plan = plan

    def refresh(
        self,
        recipe: str,
        again: Sequence[SeriesState] = (),
        redo_results: bool = True,
        only: int | None = None,
    ) -> int:
        """Plan everything anew whose outcome rests on other files or another recipe.

        Parameters
        ----------
        recipe
            Digest of that of today.
        again
            States whose series are planned anew in any case, such as failed ones.
        redo_results
            Whether those that have a result are planned anew, too.
        only
            Number of the one series to look at; None: all.
        """
        values = self._alike(recipe) | {
            "again": json.dumps([state.value for state in again]),
            "redo": redo_results,
            "only": only,
        }
        with self._plan.write() as connection:
            return connection.execute(
                "UPDATE series SET state = 'planned', reason = NULL, detail = '', job = NULL,"  # noqa: S608
                " revision = NULL WHERE plan_reason IS NULL"
                " AND state NOT IN ('planned', 'waiting') AND (:redo OR state <> 'done')"
                " AND (:only IS NULL OR number = :only)"
                f" AND ({_BY_FILES} OR {_BY_RECIPE}"
                " OR state IN (SELECT value FROM json_each(:again)))",
                values,
            ).rowcount

    def stale_results(self, recipe: str) -> StaleResults:
        """What ``refresh`` would make again though there is a result."""
        with self._plan.read() as connection:
            row = connection.execute(
                f"SELECT coalesce(sum({_BY_FILES}), 0),"  # noqa: S608
                f" coalesce(sum({_BY_RECIPE} AND NOT {_BY_FILES}), 0)"
                " FROM series WHERE plan_reason IS NULL AND state = 'done'",
                self._alike(recipe),
            ).fetchone()
        return StaleResults(*row)

    def note_lasting(self, recipe: str, lasting: str) -> None:
        """Note what a result rests on that is made by a recipe; other limits change nothing."""
        known = self._plan.setting(_RECIPE_LASTING) or {}
        if lasting and known.get(recipe) != lasting:
            self._plan.set(_RECIPE_LASTING, {**known, recipe: lasting})

    def is_alike(self, one: str, other: str) -> bool:
        """Whether two recipes make the same of a series: their limits at most are not the same."""
        known: dict[str, str] = self._plan.setting(_RECIPE_LASTING) or {}
        return one == other or (one in known and known[one] == known.get(other))

    def _alike(self, recipe: str) -> dict[str, object]:
        """A recipe, and all that make the same of a series, as values of a query."""
        known: dict[str, str] = self._plan.setting(_RECIPE_LASTING) or {}
        lasting = known.get(recipe)
        alike = [recipe, *(each for each, of in known.items() if lasting and of == lasting)]
        return {"recipe": recipe, "alike": json.dumps(alike)}

    def next_planned(self) -> PlannedSeries | None:
        """The first series that is to be run and has no job."""
        rows = self._rows(
            "plan_reason IS NULL AND state = 'planned' ORDER BY number LIMIT 1", "series_to_run"
        )
        return rows[0] if rows else None

    def patient(self, series: PlannedSeries) -> tuple[str, bytes]:
        """Keyed hash of the Patient ID that an archive has told of a series, and its key.

        The hash is empty where it has not.
        """
        with self._plan.read() as connection:
            row = connection.execute(
                "SELECT patient FROM series WHERE number = ?", (series.number,)
            ).fetchone()
        return HiddenPatient.from_json(row[0]).patient_id, run_key(self._plan.path.parent)

    def waiting(self) -> tuple[PlannedSeries, ...]:
        """Series whose job was made and is not over, as far as the plan knows."""
        return self._rows("state = 'waiting' ORDER BY number", "series_waiting")

    def is_of_another_ledger(self, ledger_id: str) -> bool:
        """Whether jobs were made in another ledger than this last time."""
        return self._plan.setting(LEDGER) not in (None, ledger_id)

    def enter_ledger(self, ledger_id: str) -> None:
        """Note which ledger jobs are made in from now on.

        Jobs that were made in another one last time are unknown here: their series are planned
        again.
        """
        if self.is_of_another_ledger(ledger_id):
            with self._plan.write() as connection:
                connection.execute(
                    "UPDATE series SET state = 'planned', reason = NULL, job = NULL,"
                    " revision = NULL, detail = 'its ledger is another one'"
                    " WHERE state = 'waiting' OR (state = 'planned' AND revision IS NOT NULL)"
                )
        if self._plan.setting(LEDGER) != ledger_id:
            self._plan.set(LEDGER, ledger_id)

    def note_settings(self, recipe: str, settings: str) -> None:
        """Note which settings a recipe stands for: who does the work looks whether it has them."""
        known = self._plan.setting(RECIPE_SETTINGS) or {}
        if known.get(recipe) != settings:
            self._plan.set(RECIPE_SETTINGS, {**known, recipe: settings})

    def intend(self, series: PlannedSeries, revision: int, recipe: str) -> None:
        """Note which job is about to be made, and of what.

        It is found again if this process dies there, and known for what it makes.
        """
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE series SET revision = ?, done_contents = ?, done_recipe = ?"
                " WHERE number = ?",
                (revision, series.contents, recipe, series.number),
            )

    def fed(self, series: PlannedSeries, job: int, recipe: str, now: datetime) -> None:
        """Note that the job of a series was made, and what its result will rest on."""
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE series SET state = 'waiting', job = ?, fed_at = ?, done_contents = ?,"
                " done_recipe = ? WHERE number = ?",
                (job, now.isoformat(), series.contents, recipe, series.number),
            )

    def found_done(
        self, series: PlannedSeries, recipe: str, ending: SeriesEnding, now: datetime
    ) -> None:
        """Note that there is a result already that rests on these files and this recipe."""
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE series SET done_contents = ?, done_recipe = ? WHERE number = ?",
                (series.contents, recipe, series.number),
            )
            _end(connection, series, ending, now)

    def end(self, series: PlannedSeries, ending: SeriesEnding, now: datetime) -> None:
        """Note how the job of a series ended."""
        with self._plan.write() as connection:
            _end(connection, series, ending, now)

    def replan(self, series: PlannedSeries, detail: str) -> None:
        """Have a series run again, by another job."""
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE series SET state = 'planned', reason = NULL, detail = ?, job = NULL,"
                " revision = NULL WHERE number = ?",
                (detail, series.number),
            )

    def lose(self, series: PlannedSeries) -> None:
        """Have a series run again whose result is gone, and count nothing of it any more."""
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE series SET state = 'planned', reason = NULL,"
                " detail = 'its result is gone', job = NULL, revision = NULL, made = NULL"
                " WHERE number = ?",
                (series.number,),
            )

    def done(self) -> Iterator[tuple[PlannedSeries, str]]:
        """Series with a result in a folder, each with its name there; also of those not to run."""
        last = 0
        while True:
            with self._plan.read() as connection:
                rows = connection.execute(
                    f"SELECT {_COLUMNS}, made ->> 'result' FROM series WHERE state = 'done'"  # noqa: S608
                    " AND made ->> 'result' <> '' AND number > ?"
                    " ORDER BY number LIMIT 1000",
                    (last,),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield PlannedSeries(*row[:-1]), row[-1]
            last = rows[-1]["number"]

    def last_fed(self, now: datetime) -> datetime | None:
        """When the last job was made; jobs of a time to come are of a clock that was put back."""
        with self._plan.read() as connection:
            text = connection.execute(
                "SELECT max(fed_at) FROM series WHERE fed_at IS NOT NULL AND fed_at <= ?",
                (now.isoformat(),),
            ).fetchone()[0]
        return None if text is None else datetime.fromisoformat(text)

    def _rows(self, condition: str, index: str) -> tuple[PlannedSeries, ...]:
        """By a partial index: what is done is many, and not looked at."""
        with self._plan.read() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM series INDEXED BY {index} WHERE {condition}"  # noqa: S608
            ).fetchall()
        return tuple(PlannedSeries(*row) for row in rows)


def _end(
    connection: sqlite3.Connection, series: PlannedSeries, ending: SeriesEnding, now: datetime
) -> None:
    connection.execute(
        "UPDATE series SET state = ?, reason = ?, detail = ?, ended_at = ?, made = ?"
        " WHERE number = ?",
        (
            ending.state,
            ending.reason,
            ending.detail,
            now.isoformat(),
            json.dumps(asdict(ending.made)),
            series.number,
        ),
    )
