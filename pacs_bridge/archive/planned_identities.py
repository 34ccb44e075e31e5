"""What plans say of the series that archives are asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.archive.hidden_patient import HiddenPatient, run_key
from pacs_bridge.archive.plan_file import PLAN_NAME, PlanFile
from pacs_bridge.archive.series_book import NOT_TO_RUN
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.queue import SPOOL, JobClaim, JobRequest
from pacs_bridge.sources.configured_sources import ExpectedSeries


@dataclass(frozen=True, slots=True)
class PlannedIdentity:
    """What a plan says of a series that an archive is asked for."""

    instance_count: int | None  #: as the archive said; None: it did not say
    patient: str  #: keyed hash of the Patient ID; empty: the archive did not say
    key: bytes  #: of that hash

    def expected(self) -> ExpectedSeries:
        """The same, as it is looked at."""
        hide = IdentityHash(self.key)
        return ExpectedSeries(
            self.instance_count, lambda read: self.patient in ("", hide.word(read))
        )


class PlannedIdentities:
    """The plans of archive runs; a ``SeriesPlans``, for any number of threads.

    Parameters
    ----------
    run_folders
        That hold the plans. One that has none, or none any more, is passed over.
    settings
        Of the process that works the jobs off; None: they are those of the runs.
    """

    def __init__(self, run_folders: Sequence[Path], settings: WantedSettings | None = None) -> None:
        self._run_folders = tuple(run_folders)
        self._settings = settings

    def expected(self, claim: JobClaim, /) -> ExpectedSeries | None:
        """See ``SeriesPlans.expected``: a plan knows the series that it has at a source.

        A job that was not made of the plan as it is now, such as one of another ledger or of an
        earlier time, is looked at for its patient all the same.
        """
        found = self.of(claim.request)
        return None if found is None else found.expected()

    def of(self, request: JobRequest) -> PlannedIdentity | None:
        """What a plan says of the series of a job. Raises as ``SeriesPlans.expected``."""
        if request.source == SPOOL:
            return None
        rows = [each for folder in self._run_folders for each in self._rows(folder, request)]
        own = next((each for each in rows if each.is_own), None)
        if own is None:
            telling = next((each for each in rows if each.row["patient"]), None)
            return None if telling is None else _identity(telling.folder, telling.row, None)
        folder, row = own.folder, own.row
        if self._settings is not None:
            self._settings.check(folder, request)
        if row["plan_reason"] is not None:
            raise PermanentError(Reason(row["plan_reason"]), NOT_TO_RUN)
        return _identity(folder, row, row["instances"] or None)

    def _rows(self, run_folder: Path, request: JobRequest) -> list[_Known]:
        """What a plan has of a series at a source: one row, or none."""
        if not (run_folder / PLAN_NAME).exists():
            return []
        with PlanFile(run_folder) as plan:
            with plan.read() as connection:
                rows = connection.execute(
                    "SELECT instances, patient, plan_reason, revision FROM series"
                    " WHERE series = ? AND source = ?",
                    (request.series_instance_uid, request.source),
                ).fetchall()
            return [
                _Known(run_folder, row, self._is_own(plan, row, request.revision)) for row in rows
            ]

    def _is_own(self, plan: PlanFile, row: sqlite3.Row, revision: int) -> bool:
        if row["revision"] != revision:
            return False
        return self._settings is None or self._settings.are_jobs_here(plan)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a plan has of a series."""

    folder: Path
    row: sqlite3.Row
    is_own: bool  #: whether it made the job that is asked about


def _identity(run_folder: Path, row: sqlite3.Row, instance_count: int | None) -> PlannedIdentity:
    patient = HiddenPatient.from_json(row["patient"])
    return PlannedIdentity(instance_count, patient.patient_id, run_key(run_folder))
