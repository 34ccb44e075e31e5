"""The results of a run: a folder for each series, under a name that tells nobody's.

What lies there says itself what it rests on, so that a result is recognised whatever became of
the plan. A folder is whole or not there at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.archive.series_book import Made, PlannedSeries, SeriesBook
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.report import REPORT_NAME, SeriesReport

RECORD_NAME: Final = "record.json"
RECORD_SCHEMA: Final = "pacs-bridge/archive-result/1"
_STAGING: Final = ".staging"
_REPLACED: Final = ".replaced"


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


class ResultsFolder:
    """Where results lie.

    Parameters
    ----------
    folder
        Of all of them; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def name(self, series: PlannedSeries) -> str:
        """Of the folder of a series, relative to that of all: SHA-256 of its UIDs."""
        text = json.dumps([series.study_instance_uid, series.series])
        word = hashlib.sha256(text.encode()).hexdigest()[:32]
        return f"{word[:2]}/{word}"

    def find(self, series: PlannedSeries, recipe: str) -> Made | None:
        """The result of a series that rests on these files and this recipe, if there is one."""
        self._mend(series)
        # damaged, or of another version: it is made again
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((self._path(series) / RECORD_NAME).read_bytes())
            rests_on = (record["schema"], record["contents"], record["recipe"])
            if rests_on == (RECORD_SCHEMA, series.contents, recipe):
                made = record["made"]
                made["findings"] = tuple(Reason(code) for code in made["findings"])
                return Made(**made)
        return None

    def has(self, name: str) -> bool:
        """Whether there is a result of that name."""
        return (self._folder / name / RECORD_NAME).exists()

    def replan_missing(self, book: SeriesBook) -> int:
        """Have the series run again whose results are here no more; gives how many."""
        gone = [series for series, name in book.done() if not self.has(name)]
        for series in gone:
            book.replan(series, "its result is gone")
        return len(gone)

    def place(self, series: PlannedSeries, recipe: str, folder: Path) -> Made | None:
        """Move a finished result here, in the place of an older one.

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
            ``disk-full``, or another error of the disk.
        PermanentError
            ``internal-error`` if the result is of another series.
        """
        try:
            return self._place(series, recipe, folder)
        except OSError as error:
            raise TransientError(disk_reason(error), f"results: {error.strerror}") from error

    def _place(self, series: PlannedSeries, recipe: str, folder: Path) -> Made | None:
        staged = self._folder / _STAGING / self._word(series)
        if _is_whole(folder):
            report_of(series, folder)
            shutil.rmtree(staged, ignore_errors=True)
            staged.parent.mkdir(parents=True, exist_ok=True)
            _move(folder, staged)
        elif (done := self.find(series, recipe)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return done
        elif not _is_whole(staged):
            return None
        made = made_of(report_of(series, staged), self.name(series))
        record = {
            "schema": RECORD_SCHEMA,
            "series_instance_uid": series.series,
            "contents": series.contents,
            "recipe": recipe,
            "made": asdict(made),
        }
        path = staged / RECORD_NAME
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        flush(path)
        flush(staged)
        self._put(series, staged)
        shutil.rmtree(folder, ignore_errors=True)  # of another disk: it was copied
        return made

    def _put(self, series: PlannedSeries, staged: Path) -> None:
        final = self._path(series)
        replaced = self._folder / _REPLACED / self._word(series)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            replaced.parent.mkdir(parents=True, exist_ok=True)
            final.rename(replaced)
        staged.rename(final)
        flush(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)

    def _mend(self, series: PlannedSeries) -> None:
        """Finish what was ended between two moves."""
        staged = self._folder / _STAGING / self._word(series)
        if (staged / RECORD_NAME).exists() and not self._path(series).exists():
            self._put(series, staged)

    def _path(self, series: PlannedSeries) -> Path:
        return self._folder / self.name(series)

    def _word(self, series: PlannedSeries) -> str:
        return self.name(series).rpartition("/")[2]


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
