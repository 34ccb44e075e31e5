"""Running a plan: in this process with a warm model, or by the workers of a service."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from inference.reasons import Reason
from inference.windows import Precision
from pacs_bridge.archive.feeder import Feeder, FeedOrder, FeedState
from pacs_bridge.archive.own_bridge import ROUTE
from pacs_bridge.archive.plan_file import FILES, PlanFile
from pacs_bridge.archive.plan_source import PlanSources
from pacs_bridge.archive.recipe import Recipe, recipe_of
from pacs_bridge.archive.results_folder import ResultsFolder, run_of
from pacs_bridge.archive.run_log import RunClock, was_told_to_end
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.archive.window import Pace
from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.child import open_log, process_name
from pacs_bridge.clock import Clock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.job_source import JobSources
from pacs_bridge.ledger.archive_jobs import ArchiveJobs
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.models import WarmSegmenters, model_stores
from pacs_bridge.pipeline import Pipeline
from pacs_bridge.sources.configured_sources import ConfiguredSources
from pacs_bridge.worker import BrokenDeviceError, Worker

_POLL_S: Final = 0.5
_WAIT_S: Final = 2.0
_MOST_WAITING: Final = 12

#: Told how the run stands, and the seconds that it has worked.
RunProgress = Callable[[FeedState, float], None]
#: Told why a run waits.
WaitTeller = Callable[[TransientError], None]


class OwnRun:
    """A run in this process. For the main thread.

    Parameters
    ----------
    run_folder
        With the plan; held by ``alone``.
    config
        From ``own_config``.
    recipe
        Of its route.
    out
        Folder for the results.
    remote
        Sources beside the plan's files, by name.
    segmenters
        From ``warm_segmenters``.
    """

    def __init__(
        self,
        run_folder: Path,
        config: BridgeConfig,
        recipe: Recipe,
        out: Path,
        remote: dict[str, JobSources],
        segmenters: WarmSegmenters,
    ) -> None:
        self._run_folder = run_folder
        self._config = config
        self._recipe = recipe
        self._out = out
        self._segmenters = segmenters
        self._sources = {FILES: PlanSources(run_folder, config.data_folder), **remote}

    def work(
        self,
        pace: Pace,
        leaving: Leaving,
        clock: Clock,
        progress: RunProgress,
        tell_wait: WaitTeller,
    ) -> FeedState:
        """Work until all is done or the run is told to end; gives how it stands then.

        Raises
        ------
        BridgeError
            If plan or ledger cannot be opened.
        BrokenDeviceError
            If the device computes no more: run again.
        """
        config = self._config
        log = open_log(config)
        most_failures = config.workers.max_attempts
        with (
            PlanFile(self._run_folder) as plan,
            closing(Ledger.open(config.ledger_path, max_failures=most_failures)) as ledger,
        ):
            # The run folder is ours: nobody works there.
            ArchiveJobs(ledger.database).take_back(may_blame=not was_told_to_end(plan))
            order = FeedOrder(ROUTE, (), self._recipe, FILES, _MOST_WAITING, pace.window, pace.rate)
            results = ResultsFolder(self._out, run_of(plan))
            feeder = Feeder(SeriesBook(plan), ledger, order, config.data_folder, clock, results)
            run = RunClock(plan, self._recipe, clock, is_own=True)

            def tell(error: TransientError) -> None:
                log.warning("run-waits", reason=error.reason, detail=error.detail)
                tell_wait(error)

            state = self._until_over(feeder, ledger, leaving, log, _Course(run, progress, tell))
            run.tick(is_working=True, is_last=True)
            progress(state, run.seconds)
        return state

    def _until_over(
        self,
        feeder: Feeder,
        ledger: Ledger,
        leaving: Leaving,
        log: Log,
        course: _Course,
    ) -> FeedState:
        """Work until all is over or told to end. A fault of a job ends that job's attempt only."""
        sources = ConfiguredSources(self._sources)
        while True:
            worker = Worker(
                self._config, ledger.jobs, sources, self._segmenters, log, leaving.leave
            )
            pipeline = Pipeline(worker)
            try:
                state = _loop(feeder, leaving, course, pipeline)
            except PermanentError:  # what is in hand is given back first
                worker.abandon()
                pipeline.drain()
                raise
            except _JobFaultError as fault:
                log.fault("job-fault", fault)
                ArchiveJobs(ledger.database).take_back()  # counts: the others were given back
                continue
            pipeline.drain()
            return _settled(feeder, state, course)


class _JobFaultError(Exception):
    """A job ended in a way that nobody foresaw."""


class _Course:
    """What a run tells on its way: how it stands, its time, and why it waits.

    Why is told once, until it goes on or something else keeps it. A wait is no work; what is in
    hand meanwhile, or when no more may be begun, is.
    """

    def __init__(self, run: RunClock, progress: RunProgress, tell_wait: WaitTeller) -> None:
        self._run = run
        self._progress = progress
        self._tell_wait = tell_wait
        self._told: tuple[Reason, str] | None = None

    def go_on(self, state: FeedState) -> None:
        self._run.tick(is_working=state.is_window_open or state.in_hand > 0)
        self._progress(state, self._run.seconds)
        self._told = None

    def say(self, error: TransientError) -> None:
        told = (error.reason, error.detail)
        if told != self._told:
            self._tell_wait(error)
        self._told = told

    def wait(self, error: TransientError, leaving: Leaving, is_busy: bool = False) -> None:
        """Wait for a while, in which series are worked off here if it is busy."""
        self.say(error)
        leaving.stop.wait(_WAIT_S)
        with suppress(TransientError):  # the plan may be what is waited for
            self._run.tick(is_working=is_busy)


def warm_segmenters(config: BridgeConfig, recipe: Recipe) -> WarmSegmenters:
    """The model of a run in this process, loaded.

    Raises
    ------
    ModelError
        If the model is not whole.
    UnknownDeviceError
        If this machine has no such device.
    TransientError
        ``wrong-recipe`` if the model was replaced since the recipe was read.
    """
    stores = model_stores(config.models.folder)
    asked = config.workers.precision
    precision = None if asked == "auto" else Precision(asked)
    segmenters = WarmSegmenters(stores, config.workers.devices[0], precision)
    route = config.routes[0]
    loaded = segmenters.get(recipe.model, route.postprocessing, route.structures).identity
    if loaded.digest != recipe.model_digest or recipe_of(config, route, stores) != recipe:
        raise TransientError(
            Reason.WRONG_RECIPE,
            f"the model {recipe.model} was replaced since the run began: run it again",
        )
    return segmenters


def _loop(feeder: Feeder, leaving: Leaving, course: _Course, pipeline: Pipeline) -> FeedState:
    state = FeedState(0, False, True, 0)
    while not leaving.stop.is_set():
        try:
            state = feeder.step(lambda: not leaving.stop.is_set())
            busy = state.is_window_open and _worked(pipeline)
            course.go_on(state)
        except TransientError as error:  # plan, ledger or results; nothing is lost
            course.wait(error, leaving, pipeline.is_busy)
            continue
        if state.is_over:
            break
        if not busy:
            leaving.stop.wait(_POLL_S)
    return state


def _worked(pipeline: Pipeline) -> bool:
    """See ``Pipeline.work_one``."""
    try:
        return pipeline.work_one(process_name())
    except (BridgeError, BrokenDeviceError):
        raise
    except Exception as error:
        raise _JobFaultError from error


def _settled(feeder: Feeder, state: FeedState, course: _Course) -> FeedState:
    """Take down what has ended since, and feed nothing."""
    try:
        return feeder.step(lambda: False)
    except TransientError as error:  # the next run does it
        course.say(error)
        return state


class FedRun:
    """A run whose work the workers of a service do, beside what it receives.

    Parameters
    ----------
    run_folder
        With the plan; held by ``alone``.
    config
        Of the service.
    order
        What is made of the series.
    """

    def __init__(self, run_folder: Path, config: BridgeConfig, order: FeedOrder) -> None:
        self._run_folder = run_folder
        self._config = config
        self._order = order

    def work(
        self, leaving: Leaving, clock: Clock, progress: RunProgress, tell_wait: WaitTeller
    ) -> FeedState:
        """Feed until all is done or the run is told to end; gives how it stands then.

        What was fed goes on when the run has ended, but for what was to begin at certain hours
        only: that is taken back. Raises as ``OwnRun.work``.
        """
        with (
            PlanFile(self._run_folder) as plan,
            closing(Ledger.open(self._config.ledger_path)) as ledger,
        ):
            feeder = Feeder(SeriesBook(plan), ledger, self._order, self._config.data_folder, clock)
            run = RunClock(plan, self._order.recipe, clock, is_own=False)
            try:
                state = _fed(feeder, leaving, _Course(run, progress, tell_wait))
                run.tick(is_working=True, is_last=True)
            finally:
                with suppress(BridgeError):  # the ledger; the next run takes it back
                    feeder.leave()
        return state


def _fed(feeder: Feeder, leaving: Leaving, course: _Course) -> FeedState:
    state = FeedState(0, False, True, 0)
    while not leaving.stop.is_set():
        try:
            state = feeder.step(lambda: not leaving.stop.is_set())
            course.go_on(state)
        except TransientError as error:  # plan or ledger; nothing is lost
            course.wait(error, leaving)
            continue
        if state.is_over:
            break
        leaving.stop.wait(_POLL_S)
    return state
