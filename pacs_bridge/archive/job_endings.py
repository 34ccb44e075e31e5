"""How the jobs of an archive run ended, with what they made put in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inference.reasons import Reason, describe
from pacs_bridge.archive.plan_file import FILES
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.results_folder import ResultsFolder, made_of, report_of
from pacs_bridge.archive.series_book import (
    NOT_TO_RUN,
    Made,
    PlannedSeries,
    SeriesBook,
    SeriesEnding,
    SeriesState,
)
from pacs_bridge.archive.service_results import is_of_patient, is_of_recipe
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.archive_jobs import JobStanding
from pacs_bridge.postgres.fence import ledger_fence_of
from pacs_bridge.queue import State
from pacs_bridge.report import REPORT_NAME
from pacs_bridge.worker_job import folder_of

_ENDING_OF_OUTCOME = {
    "skipped": SeriesState.SKIPPED,
    "refused": SeriesState.REFUSED,
    "finding or refused": SeriesState.REFUSED,
    "quarantined": SeriesState.REFUSED,
}


class JobEndings:
    """Reads what jobs left behind.

    Parameters
    ----------
    data_folder
        Of the ledger's bridge.
    recipe
        Of today.
    results
        Where results are put; None: they stay where they are.
    book
        The series of the plan.
    """

    def __init__(
        self, data_folder: Path, recipe: Recipe, results: ResultsFolder | None, book: SeriesBook
    ) -> None:
        self._data_folder = data_folder
        self._recipe = recipe
        self._book = book
        self._results = results

    def of(self, series: PlannedSeries, standing: JobStanding) -> SeriesEnding:
        """How a job that is over has ended.

        ``PLANNED`` where its result is not what is wanted or is nowhere, or where the plan did
        not want the series when its turn came: a later one may; with ``wrong-recipe``
        if its worker has other weights than the recipe that it was made by, or computes in less
        precision.

        Raises
        ------
        TransientError
            If a result cannot be put in its place now.
        """
        folder = self._folder(series, standing)
        if standing.state in (State.SENT, State.COMMITTED):
            return self._done(series, folder)
        if standing.is_withdrawn:
            return SeriesEnding(SeriesState.PLANNED, detail="taken back")
        if standing.detail == NOT_TO_RUN:
            return SeriesEnding(SeriesState.PLANNED, detail=NOT_TO_RUN)
        if standing.state is State.SUPERSEDED:
            return SeriesEnding(SeriesState.SUPERSEDED, detail=standing.detail)
        reason = standing.reason or Reason.INTERNAL_ERROR
        state = _ENDING_OF_OUTCOME.get(describe(reason).outcome, SeriesState.FAILED)
        if standing.result_path:  # it was made, and could not be delivered
            state = SeriesState.FAILED
        try:
            return SeriesEnding(state, reason, standing.detail, _read(series, folder))
        except PermanentError:  # of another series: nothing of it is told
            return SeriesEnding(state, reason, standing.detail)

    def found(self, series: PlannedSeries) -> Made | None:
        """The result that lies there already and is what is wanted today, if there is one.

        Of a series at an archive the plan knows less than its files: the result has to be of the
        patient that the archive names now, if it names one. An older one of this run goes.
        """
        if self._results is None:
            return None
        made = self._results.find(series, self._recipe.digest)
        if made is None or not is_of_recipe(made, self._recipe):
            return None
        patient, key = self._book.patient(series) if series.source != FILES else ("", b"")
        if patient:
            files = self._results.files(made)
            if not files or not all(is_of_patient(path, patient, key) for path in files):
                return None
        self._results.take(series, made)
        return made

    def _done(self, series: PlannedSeries, folder: Path) -> SeriesEnding:
        """With the result in its place."""
        try:
            made: Made | None = _read(series, folder)
            is_todays = self._book.is_alike(series.fed_recipe, self._recipe.digest)
            if made is not None and is_todays and not is_of_recipe(made, self._recipe):
                detail = "made with other weights, or in less precision"
                return SeriesEnding(SeriesState.PLANNED, Reason.WRONG_RECIPE, detail)
            if self._results is not None:
                fed = replace(series, contents=series.fed_contents)
                made = self._results.place(fed, series.fed_recipe, folder)
        except PermanentError as error:
            return SeriesEnding(SeriesState.FAILED, error.reason, error.detail)
        if made is None:
            return SeriesEnding(SeriesState.PLANNED, detail="its result is gone")
        return SeriesEnding(SeriesState.DONE, made=made)

    def _folder(self, series: PlannedSeries, standing: JobStanding) -> Path:
        if standing.result_path:
            return (self._data_folder / standing.result_path).parent
        claim = standing.fence - 1  # it rose once more when the job ended
        here = self._data_folder / "results" / folder_of(series.job or 0, claim)
        if here.exists():
            return here
        # of a job that was handed over the queue counts the leases, within that of the ledger
        elsewhere = [
            int(each.parent.name)
            for each in here.parent.glob(f"*/{REPORT_NAME}")
            if each.parent.name.isdigit() and ledger_fence_of(int(each.parent.name)) == claim
        ]
        return here.with_name(str(max(elsewhere, default=claim)))


def _read(series: PlannedSeries, folder: Path) -> Made:
    """What the report in a folder says; nothing if there is none.

    Raises
    ------
    PermanentError
        If it is of another series.
    """
    try:
        return made_of(report_of(series, folder), "")
    except (OSError, ValueError):
        return Made()
