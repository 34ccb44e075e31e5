"""Feeding the queue with the series of a plan, a few at a time, and noting what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.archive.job_endings import JobEndings
from pacs_bridge.archive.patience import Patience, takes_place
from pacs_bridge.archive.plan_file import FILES
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.results_folder import ResultsFolder
from pacs_bridge.archive.series_book import (
    NOT_TO_RUN,
    Made,
    PlannedSeries,
    SeriesBook,
    SeriesEnding,
    SeriesState,
)
from pacs_bridge.archive.service_results import ServiceResults
from pacs_bridge.archive.window import Rate, TimeWindow
from pacs_bridge.clock import Clock
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.archive_jobs import ArchiveJobs, JobStanding, KnownJob
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, Priority, State

#: More revisions than this of one series at one moment are not believed.
_MOST_TRIES = 100
#: Jobs that wait for another try, as a multiple of those that may wait at a time.
_MOST_FAILING = 4
_IN_HAND = (State.CLAIMED, State.SEGMENTED, State.ENCODED)
_OUTSIDE = "outside its hours"
_OTHER_RECIPE = (
    "the workers have other settings, precision or weights than the configuration and the model"
    " store say:"
    " start the service again, then this run"
)


@dataclass(frozen=True, slots=True)
class FeedOrder:
    """What is made of the series of a plan, and at what pace."""

    route: str
    destinations: tuple[str, ...]
    recipe: Recipe
    files_source: str  #: name by which workers know the plan's files
    most_waiting: int = 16  #: jobs at a time; a service's: those that it has not begun
    window: TimeWindow | None = None
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class FeedState:
    """How a run stands."""

    waiting: int  #: jobs that are not over
    is_over: bool  #: nothing waits and nothing is left to feed
    is_window_open: bool
    settled: int  #: series that ended in this step
    in_hand: int = 0  #: of the jobs that are not over, those that a worker has begun


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
        Where results are put; None: the workers of a service have the jobs, and it delivers.
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
        self._clock = clock
        self._is_own = results is not None
        self._endings = JobEndings(data_folder, order.recipe, results, book)
        self._service = ServiceResults(self._jobs, data_folder, book, order.recipe)
        self._patience = Patience()
        self._is_entered = False
        self._fed: set[int] = set()
        self._first_fences: dict[int, int] = {}
        self._meets_other_recipe = False

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
            If one of them is damaged; ``wrong-recipe`` if workers make something else of series
            than is wanted.
        """
        self._enter()
        is_open = self.is_window_open()
        if not is_open and not self._is_own:
            self._take_back(_OUTSIDE)
        before = self._book.waiting()
        standings = self._jobs.standings([_known(series) for series in before])
        waiting = [
            standing
            for series in before
            if (standing := self._still(series, standings.get(series.job or 0))) is not None
        ]
        settled = len(before) - len(waiting)
        if self._meets_other_recipe:
            self._take_back("for workers with the wanted settings")
            raise PermanentError(Reason.WRONG_RECIPE, _OTHER_RECIPE)
        count, room = len(waiting), self._room(waiting)
        while is_open and room > 0 and check():
            fed, found = self._feed_one()
            settled += int(found)
            if not (fed or found):
                break
            room -= int(fed)
            count += int(fed)
        is_over = not count and self._book.next_planned() is None
        in_hand = sum(each.state in _IN_HAND for each in waiting)
        return FeedState(count, is_over, is_open, settled, in_hand)

    def leave(self) -> None:
        """Let nothing begin at other hours than the wanted ones when this run has ended."""
        if self._order.window is not None and not self._is_own:
            self._take_back(_OUTSIDE)

    def _enter(self) -> None:
        """Jobs that are in another ledger are not known by their ids here."""
        if self._is_entered:
            return
        recipe = self._order.recipe
        self._book.note_settings(recipe.digest, recipe.settings)
        ledger_id = self._jobs.ledger_id()
        if self._is_own and self._book.is_of_another_ledger(ledger_id):
            self._jobs.withdraw_all()  # of an earlier time: the plan knows them no more
        self._book.enter_ledger(ledger_id)
        self._is_entered = True

    def _still(self, series: PlannedSeries, standing: JobStanding | None) -> JobStanding | None:
        """How a job stands that is waited for; None if it is not: its end is noted."""
        if standing is None:
            self._book.replan(series, "its ledger is another one")
            return None
        ending = self._ending(series, standing)
        if ending is None:
            return standing
        if ending.state in (SeriesState.DONE, SeriesState.SKIPPED):
            self._patience.note_came(standing.source)
        self._end(series, ending)
        return None

    def _room(self, waiting: Sequence[JobStanding]) -> int:
        """How many jobs may be made.

        What a service has in hand takes no place: its workers may be many.
        """
        held = () if self._is_own else _IN_HAND
        places = sum(takes_place(each) for each in waiting if each.state not in held)
        failing = sum(each.state is State.RETRY for each in waiting)
        is_rushed = self._order.rate is not None and not self._is_own
        if is_rushed and any(each.fence == 0 for each in waiting):
            return 0  # not begun yet: those after it would come with it
        if failing >= _MOST_FAILING * self._order.most_waiting:
            return 0
        return self._order.most_waiting - places

    def _take_back(self, detail: str) -> None:
        """Plan again what no worker has in hand."""
        waiting = self._book.waiting()
        standings = self._jobs.standings([_known(series) for series in waiting])
        for series in waiting:
            standing = standings.get(series.job or 0)
            if standing is None or standing.state not in (State.READY, State.RETRY):
                continue
            if self._jobs.withdraw(series.series, series.revision or 0):
                self._book.replan(series, detail)

    def _end(self, series: PlannedSeries, ending: SeriesEnding) -> None:
        recipe = self._order.recipe.digest
        if ending.state is SeriesState.PLANNED:
            self._book.replan(series, ending.detail)
            return
        if ending.state is SeriesState.DONE and not self._is_own:
            self._service.note(series, ending.made)
        self._book.end(series, ending, self._clock.now())
        if series.is_stale(recipe):  # it is not what this run is to make
            self._book.refresh(recipe, only=series.number)

    def _feed_one(self) -> tuple[bool, bool]:
        """Whether a series was fed, and whether a result was found in its place."""
        series = self._book.next_planned()
        if series is None:
            return False, False
        recipe, now = self._order.recipe, self._clock.now()
        if (made := self._found(series)) is not None:
            ending = SeriesEnding(SeriesState.DONE, made=made)
            self._book.found_done(series, recipe.digest, ending, now)
            return False, True
        rate = self._order.rate
        if rate is not None and rate.wait_s(self._book.last_fed(now), now) > 0:
            return False, False
        job = self._submit(series)
        self._fed.add(job)
        self._book.fed(series, job, recipe.digest, now)
        return True, False

    def _found(self, series: PlannedSeries) -> Made | None:
        """A result that is what is wanted today, if there is one already."""
        if self._is_own:
            return self._endings.found(series)
        return self._service.find(series, self._request(series, 0))

    def _request(self, series: PlannedSeries, revision: int) -> JobRequest:
        order = self._order
        return JobRequest(
            series_instance_uid=series.series,
            revision=revision,
            route=order.route,
            model=order.recipe.model,
            destinations=order.destinations,
            priority=Priority.ARCHIVE,
            source=order.files_source if series.source == FILES else series.source,
            study_instance_uid=series.study_instance_uid,
        )

    def _submit(self, series: PlannedSeries) -> int:
        """Make the job, or find the one that was made before this process died."""
        recipe, revision = self._order.recipe, series.revision
        if revision is not None and series.is_stale(recipe.digest):
            self._jobs.withdraw(series.series, revision)  # it may have been made, of other files
            revision = None
        for _ in range(_MOST_TRIES):
            if revision is None:
                revision = self._jobs.next_revision(series.series)
                self._book.intend(series, revision, recipe.digest)
            request = self._request(series, revision)
            job = self._ledger.jobs.submit(request)
            standing = self._jobs.standings([KnownJob(job, series.series, revision)])[job]
            if standing.source == request.source and not standing.is_withdrawn:
                return job
            revision = None  # the listener has taken the number meanwhile
        raise AssertionError("no free revision")

    def _ending(self, series: PlannedSeries, standing: JobStanding) -> SeriesEnding | None:
        """How a job has ended; None if it has not."""
        if not standing.state.is_final:
            return self._stopped(series, standing)
        ending = self._endings.of(series, standing)
        self._meets_other_recipe |= ending.reason is Reason.WRONG_RECIPE and series.job in self._fed
        return ending

    def _stopped(self, series: PlannedSeries, standing: JobStanding) -> SeriesEnding | None:
        """The end of a job that is not waited for any longer; None if it is."""
        is_stale = series.is_stale(self._order.recipe.digest)
        if is_stale or not series.is_to_run:
            if self._jobs.withdraw(series.series, series.revision or 0):
                detail = "files or settings have changed" if series.is_to_run else NOT_TO_RUN
                return SeriesEnding(SeriesState.PLANNED, detail=detail)
        elif self._is_left_for_its_recipe(series.job or 0, standing):
            self._meets_other_recipe = True
        elif self._patience.is_over(series.job or 0, standing):
            reason, revision = standing.reason or Reason.SOURCE_UNREACHABLE, series.revision or 0
            detail = f"others came between its tries: {standing.detail}"
            if self._jobs.give_up(series.series, revision, reason, detail):
                return SeriesEnding(SeriesState.FAILED, reason, detail)
        return None

    def _is_left_for_its_recipe(self, job: int, standing: JobStanding) -> bool:
        """Whether a worker with other settings has left a job since this run began."""
        if standing.state is not State.RETRY or standing.reason is not Reason.WRONG_RECIPE:
            return False
        first = self._first_fences.setdefault(job, standing.fence)
        return job in self._fed or standing.fence > first


def _known(series: PlannedSeries) -> KnownJob:
    return KnownJob(series.job or 0, series.series, series.revision or 0)
