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
    """

    def __init__(self, jobs: ArchiveJobs, data_folder: Path, book: SeriesBook) -> None:
        self._jobs = jobs
        self._data_folder = data_folder
        self._book = book

    def note(self, series: PlannedSeries, made: Made) -> None:
        """Note what a result rests on, if it says which weights it was made with."""
        if made.model_digest and series.job is not None:
            told = json.dumps(asdict(made))
            self._jobs.note_made(series.job, series.fed_contents, series.fed_recipe, told)

    def find(self, series: PlannedSeries, wanted: JobRequest, recipe: str) -> Made | None:
        """What an earlier run has had made of the same files by the same recipe, for this use.

        Of a series at an archive the plan knows less than its files: it is believed if the
        result is still here, and of the patient that the archive names now.
        """
        before = self._jobs.made_before(wanted, series.contents, recipe)
        if before is None:
            return None
        if series.source != FILES:
            path = self._data_folder / before.result_path
            patient, key = self._book.patient(series)
            if not (patient and before.result_path and is_of_patient(path, patient, key)):
                return None
        made = json.loads(before.made)
        made["findings"] = tuple(Reason(code) for code in made["findings"])
        return Made(**made)


def is_of_patient(path: Path, patient: str, key: bytes) -> bool:
    """Whether a file is of the patient whose ID has this keyed hash; one that is gone is not."""
    try:
        with quiet_pydicom():
            ds = dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        return False
    return IdentityHash(key).word(str(ds.get("PatientID", ""))) == patient
