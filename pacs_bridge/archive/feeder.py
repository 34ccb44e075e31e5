"""Feeding the queue with the series of a plan, a few at a time, and noting what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from inference.reasons import Reason, describe
from pacs_bridge.archive.plan_file import FILES
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.results_folder import ResultsFolder, made_of
from pacs_bridge.archive.series_book import (
    Made,
    PlannedSeries,
    SeriesBook,
    SeriesEnding,
    SeriesState,
)
from pacs_bridge.archive.window import Rate, TimeWindow
from pacs_bridge.clock import Clock
from pacs_bridge.ledger.archive_jobs import ArchiveJobs, JobStanding
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, Priority, State
from pacs_bridge.report import REPORT_NAME, SeriesReport

_ENDING_OF_OUTCOME = {
    "skipped": SeriesState.SKIPPED,
    "refused": SeriesState.REFUSED,
    "finding or refused": SeriesState.REFUSED,
    "quarantined": SeriesState.REFUSED,
}
#: More revisions than this of one series at one moment are not believed.
_MOST_TRIES = 100


@dataclass(frozen=True, slots=True)
class FeedOrder:
    """What is made of the series of a plan, and at what pace."""

    route: str
    destinations: tuple[str, ...]
    recipe: Recipe
    files_source: str  #: name by which workers know the plan's files
    most_waiting: int = 16  #: jobs that are not over, at a time
    window: TimeWindow | None = None
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class FeedState:
    """How a run stands."""

    waiting: int  #: jobs that are not over
    is_over: bool  #: nothing waits and nothing is left to feed
    is_window_open: bool
    settled: int  #: series that ended in this step


class Feeder:
    """Makes jobs of planned series, and takes their outcome down. For one thread.

    Parameters
    ----------
    book
        The series of the plan.
    ledger
        Takes the jobs.
    order
        What is made of them.
    data_folder
        Of the ledger's bridge.
    clock
        For the window and the rate.
    results
        Where results are put; None: they are delivered by the bridge.
    """

    def __init__(
        self,
        book: SeriesBook,
        ledger: Ledger,
        order: FeedOrder,
        data_folder: Path,
        clock: Clock,
        results: ResultsFolder | None = None,
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._jobs = ArchiveJobs(ledger.database)
        self._order = order
        self._data_folder = data_folder
        self._clock = clock
        self._results = results

    def is_window_open(self) -> bool:
        """Whether series may be begun now."""
        window = self._order.window
        return window is None or window.is_open(self._clock.now().astimezone())

    def step(self, check: Callable[[], bool] = lambda: True) -> FeedState:
        """Note what has ended, and feed what there is room for.

        Parameters
        ----------
        check
            Asked before each series; False: feed no more.

        Raises
        ------
        TransientError
            If plan, ledger or results cannot be written now; nothing is lost by trying again.
        PermanentError
            If one of them is damaged.
        """
        settled = 0
        waiting = list(self._book.waiting())
        standings = self._jobs.standings([series.job or 0 for series in waiting])
        for series in tuple(waiting):
            ending = self._ending(series, standings.get(series.job or 0))
            if ending is not None:
                self._end(series, ending)
                waiting.remove(series)
                settled += 1
        is_open = self.is_window_open()
        while is_open and len(waiting) < self._order.most_waiting and check():
            fed, found = self._feed_one()
            settled += int(found)
            if not (fed or found):
                break
            if fed:
                waiting.append(fed)
        is_over = not waiting and self._book.next_planned() is None
        return FeedState(len(waiting), is_over, is_open, settled)

    def _end(self, series: PlannedSeries, ending: SeriesEnding) -> None:
        recipe = self._order.recipe.digest
        if ending.state is SeriesState.PLANNED:
            self._book.replan(series, ending.detail)
            return
        self._book.end(series, ending, self._clock.now())
        if series.is_stale(recipe):  # it is not what this run is to make
            self._book.refresh(recipe)

    def _feed_one(self) -> tuple[PlannedSeries | None, bool]:
        """The series that was fed; or None, and whether a result was found in its place."""
        series = self._book.next_planned()
        if series is None:
            return None, False
        recipe, now = self._order.recipe, self._clock.now()
        if self._results and (made := self._results.find(series, recipe.digest)) is not None:
            ending = SeriesEnding(SeriesState.DONE, made=made)
            self._book.found_done(series, recipe.digest, ending, now)
            return None, True
        rate = self._order.rate
        if rate is not None and rate.wait_s(self._book.last_fed(now), now) > 0:
            return None, False
        job = self._submit(series)
        self._book.fed(series, job, recipe.digest, now)
        return series, False

    def _submit(self, series: PlannedSeries) -> int:
        """Make the job, or find the one that was made before this process died."""
        source = self._order.files_source if series.source == FILES else series.source
        revision = series.revision
        for _ in range(_MOST_TRIES):
            if revision is None:
                revision = self._jobs.next_revision(series.series)
                self._book.intend(series, revision)
            job = self._ledger.jobs.submit(
                JobRequest(
                    series_instance_uid=series.series,
                    revision=revision,
                    route=self._order.route,
                    model=self._order.recipe.model,
                    destinations=self._order.destinations,
                    priority=Priority.ARCHIVE,
                    source=source,
                    study_instance_uid=series.study_instance_uid,
                )
            )
            if self._jobs.standings([job])[job].source == source:
                return job
            revision = None  # the listener has taken the number meanwhile
        raise AssertionError("no free revision")

    def _ending(self, series: PlannedSeries, standing: JobStanding | None) -> SeriesEnding | None:
        """How a job has ended; None if it has not."""
        if standing is None:
            return SeriesEnding(SeriesState.PLANNED, detail="its ledger is another one")
        if not standing.state.is_final:
            is_stale = series.is_stale(self._order.recipe.digest)
            if is_stale and self._jobs.withdraw(series.job or 0):
                return SeriesEnding(SeriesState.PLANNED, detail="files or settings have changed")
            return None
        folder = self._folder(series, standing)
        if standing.state in (State.SENT, State.COMMITTED):
            made = self._made(series, folder)
            if made is None:
                return SeriesEnding(SeriesState.PLANNED, detail="its result is gone")
            return SeriesEnding(SeriesState.DONE, made=made)
        if standing.state is State.SUPERSEDED:
            return SeriesEnding(SeriesState.SUPERSEDED, detail=standing.detail)
        reason = standing.reason or Reason.INTERNAL_ERROR
        state = _ENDING_OF_OUTCOME.get(describe(reason).outcome, SeriesState.FAILED)
        if standing.result_path:  # it was made, and could not be delivered
            state = SeriesState.FAILED
        return SeriesEnding(state, reason, standing.detail, _read(folder))

    def _made(self, series: PlannedSeries, folder: Path) -> Made | None:
        """What was made, in its place; None if it is nowhere."""
        if self._results is None:
            return _read(folder)
        fed = replace(series, contents=series.fed_contents)
        return self._results.place(fed, series.fed_recipe, folder)

    def _folder(self, series: PlannedSeries, standing: JobStanding) -> Path:
        if standing.result_path:
            return (self._data_folder / standing.result_path).parent
        claim = standing.fence - 1  # it rose once more when the job ended
        return self._data_folder / "results" / f"{series.job:08d}" / f"{claim:04d}"


def _read(folder: Path) -> Made:
    """What the report in a folder says; nothing if there is none."""
    try:
        return made_of(SeriesReport.read(folder / REPORT_NAME), "")
    except (OSError, ValueError):
        return Made()
