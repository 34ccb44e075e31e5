"""The results of a run: a folder for each series, under a name that tells nobody's.

What lies there says itself what it rests on and for which run it was made, so that a result is
recognised whatever became of the plan, and no run takes away what another one has made. A folder
is whole or not there at all.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.series_book import Made, PlannedSeries, SeriesBook
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.report import REPORT_NAME, SeriesReport

RECORD_NAME: Final = "record.json"
RECORD_SCHEMA: Final = "pacs-bridge/archive-result/1"
_STAGING: Final = ".staging"
_REPLACED: Final = ".replaced"
_LOCK_NAME: Final = ".placing.lock"
_LOCK_TRIES: Final = 20
_LOCK_WAIT_S: Final = 0.05
_RUN: Final = "run"  #: a setting of the plan


def made_of(report: SeriesReport, result: str) -> Made:
    """What a report says that the account of a run needs."""
    outputs = [output for stack in report.stacks for output in stack.outputs]
    findings = [finding.reason for stack in report.stacks for finding in stack.findings]
    return Made(
        result=result,
        outputs=len(outputs),
        output_bytes=sum(output.size_bytes for output in outputs),
        structures=sum(len(stack.structures) for stack in report.stacks),
        findings=tuple(dict.fromkeys(findings)),
        seconds={str(stage): seconds for stage, seconds in report.timings_s.items()},
        peak_memory_bytes=report.peak_memory_bytes,
        model=report.model.name if report.model else "",
        model_digest=report.model.digest if report.model else "",
        precision=report.precision,
    )


def report_of(series: PlannedSeries, folder: Path) -> SeriesReport:
    """The report in the folder of a result.

    Raises
    ------
    OSError, ValueError
        If there is none that can be read.
    PermanentError
        ``internal-error`` if it is of another series.
    """
    report = SeriesReport.read(folder / REPORT_NAME)
    if report.series.series_instance_uid not in ("", series.series):  # empty: it has no one
        raise PermanentError(Reason.INTERNAL_ERROR, "the result is of another series")
    return report


def run_of(plan: PlanFile) -> str:
    """The word that tells a plan from every other one: results say by it for whom they are."""
    known = plan.setting(_RUN)
    if known is None:
        known = uuid4().hex
        plan.set(_RUN, known)
    return str(known)


@dataclass(frozen=True, slots=True)
class _Record:
    """What lies beside a result."""

    contents: str
    recipe: str
    run: str  #: that it was made for; empty: nobody's, and anybody may put something else there
    made: Made

    @classmethod
    def read(cls, folder: Path) -> _Record | None:
        """None if there is none, or what there is is damaged or of another version."""
        with suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            told = json.loads((folder / RECORD_NAME).read_bytes())
            if told["schema"] == RECORD_SCHEMA:
                findings = tuple(Reason(code) for code in told["made"]["findings"])
                made = Made(**told["made"] | {"findings": findings})
                return cls(told["contents"], told["recipe"], told.get("run", ""), made)
        return None

    def rests_on(self, contents: str, recipe: str) -> bool:
        return (self.contents, self.recipe) == (contents, recipe)


class ResultsFolder:
    """Where results lie; several runs may put theirs into one folder.

    Parameters
    ----------
    folder
        Of all of them; it is made.
    run
        From ``run_of``, of the run whose results are put here.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        self._folder = folder
        self._run = run
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, series: PlannedSeries, recipe: str) -> Made | None:
        """The result of a series that rests on these files and this recipe, if there is one.

        It may have been made for another run, which its seconds are counted for.

        Raises
        ------
        TransientError
            If a move that was ended in between cannot be finished now.
        """
        with _told_of_the_disk():
            self._mend(series)
        for name in self._names(series):
            with suppress(OSError):  # it is made again
                record = _Record.read(self._folder / name)
                if record is not None and record.rests_on(series.contents, recipe):
                    is_own = record.run == self._run
                    return record.made if is_own else replace(record.made, seconds={})
        return None

    def take(self, series: PlannedSeries, made: Made) -> None:
        """Remove what this run has made of a series before it takes what ``find`` gave.

        Raises
        ------
        TransientError
            If it cannot be removed now.
        """
        with _told_of_the_disk():
            self._drop_older(series, made)

    def files(self, made: Made) -> tuple[Path, ...]:
        """The Segmentations of a result."""
        return tuple(sorted((self._folder / made.result).glob("*.dcm")))

    def replan_missing(self, book: SeriesBook) -> int:
        """Have the series run again whose results are here no more; gives how many.

        Another run may have put a result of other files or another recipe there.

        Raises
        ------
        OSError
            If it cannot be seen whether they are.
        """
        gone = [series for series, name in book.done() if not self._has(series, name)]
        for series in gone:
            book.lose(series)
        return len(gone)

    def _has(self, series: PlannedSeries, name: str) -> bool:
        record = _Record.read(self._folder / name)
        return record is not None and record.rests_on(series.fed_contents, series.fed_recipe)

    def place(self, series: PlannedSeries, recipe: str, folder: Path) -> Made | None:
        """Move a finished result here, in the place of an older one of the same run.

        Parameters
        ----------
        folder
            With the result and its report; gone afterwards. Where it is gone already, or not
            whole, an earlier call was ended after it had been moved.

        Returns
        -------
        Made or None
            None if the result is neither there nor here: it has to be made again.

        Raises
        ------
        TransientError
            ``disk-full``, or another error of the disk; or another run is putting a result here.
        PermanentError
            ``internal-error`` if the result is of another series.
        """
        with _told_of_the_disk():
            return self._place(series, recipe, folder)

    def _place(self, series: PlannedSeries, recipe: str, folder: Path) -> Made | None:
        staged = self._staged(series)
        if _is_whole(folder):
            report_of(series, folder)
            shutil.rmtree(staged, ignore_errors=True)
            staged.parent.mkdir(parents=True, exist_ok=True)
            _move(folder, staged)
        elif not _is_whole(staged):  # what is staged goes before what another run has put here
            done = self.find(series, recipe)
            if done is not None:
                self._drop_older(series, done)
                shutil.rmtree(folder, ignore_errors=True)
            return done
        with self._placing():
            made = made_of(report_of(series, staged), self._free_name(series))
            if (twin := self._twin(series, recipe, staged)) is not None:
                self._drop_older(series, twin)
                shutil.rmtree(staged)
                shutil.rmtree(folder, ignore_errors=True)
                return replace(twin, seconds=made.seconds)
            record = {
                "schema": RECORD_SCHEMA,
                "series_instance_uid": series.series,
                "contents": series.contents,
                "recipe": recipe,
                "run": self._run,
                "made": asdict(made),
            }
            path = staged / RECORD_NAME
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            flush(path)
            flush(staged)
            self._put(staged, made.result)
        shutil.rmtree(folder, ignore_errors=True)  # of another disk: it was copied
        return made

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Hold all places, so that no other run takes one between a look at it and a move.

        On a disk that knows no locks the look is repeated right before the move, and that is all.

        Raises
        ------
        BlockingIOError
            If another run holds them for longer than a result takes.
        """
        descriptor = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _twin(self, series: PlannedSeries, recipe: str, staged: Path) -> Made | None:
        """What another run has put here of the same, UIDs and all, while ours was made."""
        ours = _uids(report_of(series, staged))
        for name in self._names(series):
            there = self._folder / name
            record = _Record.read(there)
            if record is None or record.run in ("", self._run):
                continue
            with suppress(ValueError, PermanentError):  # it is no result of the series
                is_whole = record.rests_on(series.contents, recipe) and _is_whole(there)
                if is_whole and _uids(report_of(series, there)) == ours:
                    return record.made
        return None

    def _put(self, staged: Path, name: str) -> None:
        final = self._folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        if self._is_taken(name):
            raise FileExistsError(errno.EEXIST, "another run has put a result there")
        if final.exists():
            self._set_aside(name)
        staged.rename(final)
        flush(final.parent)
        shutil.rmtree(self._replaced(name), ignore_errors=True)

    def _drop_older(self, series: PlannedSeries, taken: Made) -> None:
        """Remove what this run has put apart of a series for which it takes another result."""
        _, apart = self._names(series)
        if taken.result == apart:
            return
        record = _Record.read(self._folder / apart)
        if record is not None and record.run == self._run:
            self._set_aside(apart)
        shutil.rmtree(self._replaced(apart), ignore_errors=True)

    def _set_aside(self, name: str) -> None:
        """Take a result away at once, to be deleted."""
        replaced = self._replaced(name)
        shutil.rmtree(replaced, ignore_errors=True)
        replaced.parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).rename(replaced)

    def _replaced(self, name: str) -> Path:
        return self._folder / _REPLACED / self._run / Path(name).name

    def _mend(self, series: PlannedSeries) -> None:
        """Finish what was ended between two moves."""
        staged = self._staged(series)
        record = _Record.read(staged)
        if record is not None and not (self._folder / record.made.result).exists():
            with self._placing():
                self._put(staged, record.made.result)

    def _staged(self, series: PlannedSeries) -> Path:
        """Of this run alone: another one may be putting its result of the series in its place."""
        return self._folder / _STAGING / self._run / Path(_name(series, "")).name

    def _names(self, series: PlannedSeries) -> tuple[str, str]:
        """Where its result may be: at its own place, or apart from that of another run."""
        return _name(series, ""), _name(series, self._run)

    def _free_name(self, series: PlannedSeries) -> str:
        """Where its result is put: what was made for another run stays where it is."""
        name, apart = self._names(series)
        return apart if self._is_taken(name) or (self._folder / apart).exists() else name

    def _is_taken(self, name: str) -> bool:
        record = _Record.read(self._folder / name)
        return record is not None and record.run not in ("", self._run)


@contextmanager
def _told_of_the_disk() -> Iterator[None]:
    """Raise errors of the system as what may go away."""
    try:
        yield
    except OSError as error:
        raise TransientError(disk_reason(error), f"results: {error.strerror}") from error


def _lock(descriptor: int) -> None:
    """Lock a file that is held for moments only; passes where the disk knows no locks."""
    for is_last in (*[False] * _LOCK_TRIES, True):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if is_last:
                text = "another run is putting a result there"
                raise BlockingIOError(errno.EAGAIN, text) from error
            time.sleep(_LOCK_WAIT_S)
        except OSError:
            return
        else:
            return


def _name(series: PlannedSeries, apart: str) -> str:
    """Of a folder, relative to that of all: SHA-256 of the UIDs of a series."""
    text = json.dumps([series.study_instance_uid, series.series, *([apart] if apart else [])])
    word = hashlib.sha256(text.encode()).hexdigest()[:32]
    return f"{word[:2]}/{word}"


def _uids(report: SeriesReport) -> list[str]:
    return [output.sop_instance_uid for stack in report.stacks for output in stack.outputs]


def _is_whole(folder: Path) -> bool:
    """Whether a report and every file that it names are there."""
    try:
        report = SeriesReport.read(folder / REPORT_NAME)
        return all(
            (folder / output.file).stat().st_size == output.size_bytes
            for stack in report.stacks
            for output in stack.outputs
        )
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _move(folder: Path, target: Path) -> None:
    """Move a folder, or copy it to another disk: there it is deleted when all is in its place."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for path in folder.iterdir():
            shutil.copyfile(path, partial / path.name)
            flush(partial / path.name)
        flush(partial)
        partial.rename(target)
        flush(target.parent)
