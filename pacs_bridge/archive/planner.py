"""Making a plan: walk, read what is new, examine what changed.

It can be ended at any moment and begun again: what was read and committed is not read again,
and a series is examined when all that the walk has met of it was read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from dicom_seg.read.examination import SeriesRules
from inference.reasons import Reason
from pacs_bridge.archive.examining import (
    REPEATED,
    KnownPart,
    TriagedSeries,
    TriageTask,
    triage,
)
from pacs_bridge.archive.hidden_patient import HiddenPatient
from pacs_bridge.archive.known_files import KnownFile
from pacs_bridge.archive.listing import (
    FolderBook,
    Listing,
    first_fault,
    mark_beside_faulty,
    only_series,
)
from pacs_bridge.archive.plan_file import FILES, PlanFile
from pacs_bridge.archive.reading import FolderFiles, ReadBatch, ReadFile, ReadingTask, read_batch
from pacs_bridge.archive.remote_plan import KEEP_CONTESTED, contested_at, is_another
from pacs_bridge.archive.walk import Walk
from pacs_bridge.errors import TransientError, disk_reason

#: Files that go to a process at once.
_BATCH_FILES: Final = 256
#: Of a zip file that is large: its directory is read whole at every opening.
_MOST_OPENINGS: Final = 16
#: Batches on their way: what bounds the memory.
_MOST_UNDER_WAY: Final = 8
_SERIES_AT_ONCE: Final = 64
#: A process reads the directory of a zip file once for so many.
_SERIES_A_TASK: Final = 8
_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")

#: Told the files met, the files read, and the series examined so far.
PlanProgress = Callable[[int, int, int], None]


@dataclass(slots=True)
class PlanTally:
    """What one call of the planner did."""

    files_met: int = 0
    files_read: int = 0
    series_examined: int = 0
    unread_lines: int = 0  #: of a list: they name neither a series nor a path


class Planner:
    """Brings a plan up to date with folder trees.

    Parameters
    ----------
    plan
        To be made or brought up to date.
    rules
        Of the site; other ones than last time make all series be examined anew.
    key
        Of ``IdentityHash``.
    executor
        Reads headers and examines series.
    progress
        Told how far it is; what it raises ends the planning.
    """

    def __init__(
        self,
        plan: PlanFile,
        rules: SeriesRules,
        key: bytes,
        executor: Executor,
        progress: PlanProgress = lambda _met, _read, _examined: None,
    ) -> None:
        self._plan = plan
        self._rules = rules
        self._key = key
        self._executor = executor
        self._progress = progress
        self.tally = PlanTally()

    def take_in(self, roots: Sequence[Path], leave_out: tuple[Path, ...] = ()) -> None:
        """Walk the trees, read what is new or changed, and examine the series of it.

        Raises
        ------
        TransientError, PermanentError
            If the plan cannot be written.
        """
        book = FolderBook(self._plan)
        walk = book.begin()
        for batch in self._under_way(read_batch, self._tasks(book, walk, roots, leave_out)):
            self._keep(batch)
            self._tell()
        book.zips_are_read()
        book.forget_unmet(walk, [os.fsencode(root) for root in roots])
        self.examine()

    def examine(self) -> None:
        """Examine the series of which files came, changed or went."""
        for verdicts in self._under_way(triage, self._triage_tasks()):
            for verdict in verdicts:
                self._judge(verdict)
                self.tally.series_examined += 1
            self._tell()

    def _tell(self) -> None:
        tally = self.tally
        self._progress(tally.files_met, tally.files_read, tally.series_examined)

    def _tasks(
        self, book: FolderBook, walk: int, roots: Sequence[Path], leave_out: tuple[Path, ...]
    ) -> Iterator[ReadingTask]:
        """What is to be read, a batch at a time; each folder is looked at as its turn comes."""
        folders: list[FolderFiles] = []
        count = 0
        for root in roots:
            met_before, folder_count = self.tally.files_met, 0
            book.forget_gone_file(os.fsencode(root))
            is_emptied = False
            for folder in Walk(root, leave_out):
                folder_count += 1
                listing = Listing(self._plan, book, folder, walk, may_be_away=folder_count == 1)
                is_emptied |= listing.is_empty
                self.tally.files_met += listing.met
                self._tell()
                most = _BATCH_FILES
                if folder.is_zip:
                    most = max(most, listing.met // _MOST_OPENINGS)
                for files in listing.changed(most):
                    folders.append(FolderFiles(listing.id, folder.path, folder.is_zip, files))
                    count += len(files)
                    if count >= _BATCH_FILES:
                        yield ReadingTask(tuple(folders), self._rules, self._key)
                        folders, count = [], 0
            if folder_count == 1 and self.tally.files_met == met_before:
                book.keep(os.fsencode(root), walk)
            elif is_emptied:
                book.forget_emptied(os.fsencode(root))
        if folders:
            yield ReadingTask(tuple(folders), self._rules, self._key)

    def _under_way(
        self, work: Callable[[_Task], _Answer], tasks: Iterable[_Task]
    ) -> Iterator[_Answer]:
        """The answers to tasks, a few of which are worked on at once; in any order.

        Raises
        ------
        TransientError
            ``internal-error`` if a process that reads was ended, ``disk-full`` where there is no
            room for what is taken out of zip files: what was read stays read.
        """
        waiting = iter(tasks)
        running: set[Future[_Answer]] = set()
        while True:
            try:
                for task in islice(waiting, _MOST_UNDER_WAY - len(running)):
                    running.add(self._executor.submit(work, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                answers = [future.result() for future in done]
            except BrokenExecutor as error:
                raise TransientError(
                    Reason.INTERNAL_ERROR, "a process that reads headers was ended: plan again"
                ) from error
            except OSError as error:
                raise TransientError(disk_reason(error), f"a plan: {error.strerror}") from error
            yield from answers

    def _keep(self, batch: ReadBatch) -> None:
        with self._plan.write() as connection:
            for part in batch.parts:
                number = connection.execute(
                    "INSERT INTO parts (series, instances) VALUES (?, ?) RETURNING id",
                    (part.series, part.instances),
                ).fetchone()[0]
                connection.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [_row(file, number, place) for place, file in enumerate(part.files)],
                )
                connection.execute("INSERT OR IGNORE INTO unexamined VALUES (?)", (part.series,))
                self.tally.files_read += len(part.files)
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(file, None, 0) for file in batch.loose],
            )
            for folder in {file.folder_id for file in batch.loose}:
                mark_beside_faulty(connection, folder)
            self.tally.files_read += len(batch.loose)

    def _triage_tasks(self) -> Iterator[tuple[TriageTask, ...]]:
        last = ""
        while True:
            with self._plan.read() as connection:
                rows = connection.execute(
                    "SELECT series FROM unexamined WHERE series > ? ORDER BY series LIMIT ?",
                    (last, _SERIES_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            for start in range(0, len(rows), _SERIES_A_TASK):
                some = rows[start : start + _SERIES_A_TASK]
                yield tuple(self._triage_task(row[0]) for row in some)
            last = rows[-1][0]

    def _triage_task(self, series: str) -> TriageTask:
        parts = known_parts(self._plan, series)
        return TriageTask(series, parts, self._rules, self._beside(series, parts))

    def _beside(self, series: str, parts: Sequence[KnownPart]) -> Reason | None:
        """Why a file beside a series is of none, if it can only be of this one."""
        folders = {file.folder_id for part in parts for file in part.files.values()}
        with self._plan.read() as connection:
            for folder in sorted(folders):
                reason = first_fault(connection, folder)
                if reason is not None and only_series(connection, folder) == series:
                    return reason
        return None

    def _judge(self, verdict: TriagedSeries) -> None:
        with self._plan.write() as connection:
            connection.execute("DELETE FROM unexamined WHERE series = ?", (verdict.series,))
            connection.execute(
                "DELETE FROM parts WHERE series = ? AND NOT EXISTS"
                " (SELECT 1 FROM files f WHERE f.part = parts.id)",
                (verdict.series,),
            )
            if not verdict.instance_count:
                _forget_series(connection, verdict.series)
                return
            patient = HiddenPatient(verdict.patient_id)
            contested = _contested(connection, verdict, patient)
            reason = Reason.MIXED_IDENTITY if contested else verdict.reason
            connection.execute(
                "UPDATE files SET reason = NULL WHERE part IN"
                " (SELECT id FROM parts WHERE series = ?)",
                (verdict.series,),
            )
            connection.executemany(
                "UPDATE files SET reason = ? WHERE folder = ? AND name = ?",
                [(reason, *key) for key, reason in verdict.left_out if reason in REPEATED],
            )
            connection.execute(
                "INSERT INTO series (series, study_instance_uid, source, instances, planes,"  # noqa: S608
                " bytes, contents, plan_reason, plan_detail, findings, patient)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series) DO UPDATE SET"
                " study_instance_uid = excluded.study_instance_uid, source = excluded.source,"
                " instances = excluded.instances, planes = excluded.planes,"
                " bytes = excluded.bytes, contents = excluded.contents,"
                f" findings = excluded.findings, patient = excluded.patient, {KEEP_CONTESTED}",
                (
                    verdict.series,
                    verdict.study_instance_uid,
                    FILES,
                    verdict.instance_count,
                    verdict.plane_count,
                    verdict.size_bytes,
                    verdict.contents,
                    reason,
                    contested or verdict.detail,
                    json.dumps(verdict.findings),
                    patient.to_json() if patient.is_told else "",
                ),
            )


def _contested(
    connection: sqlite3.Connection, verdict: TriagedSeries, patient: HiddenPatient
) -> str:
    """What is said of files of a series that an archive has of somebody else; empty otherwise."""
    row = connection.execute(
        "SELECT source, study_instance_uid, patient FROM series WHERE series = ? AND source <> ?"
        " AND plan_reason IS NOT 'source-missing'",
        (verdict.series, FILES),
    ).fetchone()
    if row is None or not is_another(row, FILES, verdict.study_instance_uid, patient):
        return ""
    return contested_at(row["source"])


def _forget_series(connection: sqlite3.Connection, series: str) -> None:
    """No file of it is left: what was to run, and what was made of it, stay accounted for."""
    connection.execute("DELETE FROM parts WHERE series = ?", (series,))
    connection.execute(
        "DELETE FROM series WHERE series = ? AND state = 'planned' AND plan_reason IS NOT NULL",
        (series,),
    )
    connection.execute(
        "UPDATE series SET plan_reason = ?, plan_detail = 'its files are gone' WHERE series = ?",
        (Reason.SOURCE_MISSING, series),
    )


def known_parts(plan: PlanFile, series: str) -> tuple[KnownPart, ...]:
    """The headers of a series and where its files lie."""
    with plan.read() as connection:
        parts = connection.execute(
            "SELECT id, instances FROM parts WHERE series = ? ORDER BY id", (series,)
        ).fetchall()
        rows = connection.execute(
            "SELECT f.part, f.place, f.folder, d.path, d.is_zip, f.name, f.size, f.modified_ns"
            " FROM files f JOIN folders d ON d.id = f.folder JOIN parts p ON p.id = f.part"
            " WHERE p.series = ?",
            (series,),
        ).fetchall()
    places: dict[int, dict[int, KnownFile]] = {}
    for part, place, *file in rows:
        places.setdefault(part, {})[place] = KnownFile(*file)
    return tuple(
        KnownPart(part["instances"], places[part["id"]]) for part in parts if part["id"] in places
    )


def _row(file: ReadFile, part: int | None, place: int) -> tuple[object, ...]:
    stamp = file.stamp
    return (
        file.folder_id,
        stamp.name,
        stamp.size_bytes,
        stamp.modified_ns,
        part,
        place,
        file.sop_instance_uid,
        file.reason,
    )
