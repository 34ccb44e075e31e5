"""What a service has made for archive runs before, as far as its ledger knows what it rests on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_seg.read.header import quiet_pydicom
from inference.reasons import Reason
from pacs_bridge.archive.plan_file import FILES
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.series_book import Made, PlannedSeries, SeriesBook
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.archive_jobs import ArchiveJobs
from pacs_bridge.queue import JobRequest


class ServiceResults:
    """Results that the destinations have already.

    Parameters
    ----------
    jobs
        Of the service's ledger.
    data_folder
        Of the service.
    book
        The series of the plan: whose they are.
    recipe
        Of today.
    """

    def __init__(
        self, jobs: ArchiveJobs, data_folder: Path, book: SeriesBook, recipe: Recipe
    ) -> None:
        self._jobs = jobs
        self._recipe = recipe
        self._data_folder = data_folder
        self._book = book

    def note(self, series: PlannedSeries, made: Made) -> None:
        """Note what a result rests on, if it says which weights it was made with.

        Of a job of other settings nobody knows which weights were wanted.
        """
        is_known = self._book.is_alike(series.fed_recipe, self._recipe.digest)
        if made.model_digest and series.job is not None and is_known:
            told = json.dumps(asdict(made))
            self._jobs.note_made(series.job, series.fed_contents, series.fed_recipe, told)

    def find(self, series: PlannedSeries, wanted: JobRequest) -> Made | None:
        """What an earlier run has had made of the same files by the same recipe, for this use.

        Its seconds were counted for that one. Of a series at an archive the plan knows less than
        its files: it is believed if the result is still here, and of the patient that the archive
        names now.
        """
        before = self._jobs.made_before(wanted, series.contents, self._recipe.digest)
        if before is None:
            return None
        if series.source != FILES:
            path = self._data_folder / before.result_path
            patient, key = self._book.patient(series)
            if not (patient and before.result_path and is_of_patient(path, patient, key)):
                return None
        told = json.loads(before.made)
        told["seconds"] = {}
        told["findings"] = tuple(Reason(code) for code in told["findings"])
        made = Made(**told)
        return made if is_of_recipe(made, self._recipe) else None


def is_of_recipe(made: Made, recipe: Recipe) -> bool:
    """Whether a result has weights and precision of a recipe, as far as it says."""
    is_its_model = made.model_digest in ("", recipe.model_digest)
    return is_its_model and recipe.is_made_so(made.precision)


def is_of_patient(path: Path, patient: str, key: bytes) -> bool:
    """Whether a file is of the patient whose ID has this keyed hash; one that is gone is not."""
    try:
        with quiet_pydicom():
            ds = dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        return False
    return IdentityHash(key).word(str(ds.get("PatientID", ""))) == patient
