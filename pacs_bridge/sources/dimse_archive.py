"""An archive with C-FIND, and C-GET or C-MOVE, in the Study Root model (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig, RetrieveBy
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.log import Log
from pacs_bridge.receive.header import is_valid_uid
from pacs_bridge.receive.sop_classes import IMAGES
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dimse_retrieval import DimseRetrieval, Retrieve
from pacs_bridge.sources.find_scu import FindScu, count_of, text_of, texts_of
from pacs_bridge.sources.get_scu import GetScu
from pacs_bridge.sources.met_series import MetSeries
from pacs_bridge.sources.move_scu import MoveScu
from pacs_bridge.sources.received_series import ReceivedSeries, SizeLimits, WantedSeries
from pacs_bridge.sources.remote_archive import (
    FoundPatient,
    FoundSeries,
    SeriesQuery,
    checked_uid,
)

_PATIENT_TOLD = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
_STUDY_TOLD = (
    *("StudyInstanceUID", "StudyDate", "StudyDescription", "ModalitiesInStudy"),
    *_PATIENT_TOLD,
)
_SERIES_TOLD = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "ProtocolName",
    "Manufacturer",
    "NumberOfSeriesRelatedInstances",
)


class DimseArchive:
    """A ``RemoteArchive`` over associations.

    Parameters
    ----------
    config
        Of the source.
    calling_ae_title
        Ours.
    log
        For associations that the archive opens to us.
    retry
        For associations that are dropped.
    """

    def __init__(
        self,
        config: DimseSourceConfig,
        calling_ae_title: str,
        log: Log,
        retry: BriefRetry | None = None,
    ) -> None:
        self._config = config
        self._calling_ae_title = calling_ae_title
        self._log = log
        self._retry = retry or BriefRetry()

    def find(
        self, query: SeriesQuery, check: Callable[[], None] = lambda: None
    ) -> Iterator[FoundSeries]:
        """See ``RemoteArchive.find``. Image Type, kernel and slice thickness are not given.

        Studies are searched day by day where the query names a first and a last day, then the
        series of each: no answer is larger than a day of the archive.
        """
        met = MetSeries(query)
        with self._finder(check) as finder:
            owners = _Owners(finder)
            for study in _studies(query, finder):
                met.begin_answer()
                for found in _series_of(query, study, finder, owners):
                    if met.is_new(found):
                        yield found
        if met.nameless:
            self._log.warning("series-without-uid", source=self._config.name, number=met.nameless)

    def fetch(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        folder: Path,
        check: Callable[[], None],
    ) -> tuple[Path, ...]:
        """See ``RemoteArchive.fetch``. Only CT images are fetched, as the listener takes them.

        What does not come with the series is asked for by itself, see ``DimseRetrieval``.
        """
        with self._finder(check) as finder:
            study, listed = self._listed(finder, study_instance_uid, series_instance_uid)
        limits = SizeLimits.of(self._config.max_instance_mib, self._config.max_series_gib)
        wanted = WantedSeries(study, series_instance_uid, frozenset(listed))
        series = ReceivedSeries(folder, wanted, limits)
        sop_classes = frozenset(listed.values())
        retrieval = DimseRetrieval(
            wanted,
            series,
            self._retriever(series, sop_classes, check),
            self._config.name,
        )
        self._retry.run(retrieval.attempt, check)
        return series.paths

    def ask(self) -> str:
        """See ``RemoteArchive.ask``: searches for a study that there is not."""
        with self._finder(lambda: None) as finder:
            finder.find("STUDY", {"StudyInstanceUID": _NO_STUDY})
        return f"C-FIND answers; series come by {self._config.retrieve.upper()}"

    @contextmanager
    def _finder(self, check: Callable[[], None]) -> Iterator[FindScu]:
        finder = FindScu(self._config, self._calling_ae_title, self._retry, check)
        try:
            yield finder
        finally:
            finder.close()

    def _retriever(
        self, series: ReceivedSeries, sop_classes: frozenset[str], check: Callable[[], None]
    ) -> Retrieve:
        if self._config.retrieve is RetrieveBy.MOVE:
            move = MoveScu(self._config, self._calling_ae_title, self._log)
            return lambda identifier, asked: move.retrieve(identifier, series, check, asked)
        get = GetScu(self._config, self._calling_ae_title, sop_classes)
        return lambda identifier, asked: get.retrieve(identifier, series, check, asked)

    def _listed(self, finder: FindScu, study: str, series: str) -> tuple[str, dict[str, str]]:
        """Study of the series, and by the archive's lists its images: SOP classes by their UIDs.

        A SOP class that the archive does not tell is empty.
        """
        keys = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": checked_uid(series),
            "NumberOfSeriesRelatedInstances": "",
        }
        matches = [
            each
            for each in finder.find("SERIES", keys)
            if text_of(each, "SeriesInstanceUID") == series
        ]
        if not matches:
            raise PermanentError(
                Reason.SOURCE_MISSING, f"{self._config.name}: has no series {series}"
            )
        study = study or checked_uid(text_of(matches[0], "StudyInstanceUID"))
        count = count_of(matches[0], "NumberOfSeriesRelatedInstances")
        keys = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": "",
            "SOPClassUID": "",
        }
        images = finder.find("IMAGE", keys)
        listed = {text_of(each, "SOPInstanceUID"): text_of(each, "SOPClassUID") for each in images}
        listed.pop("", None)
        if len(listed) < max(count or 0, 1):
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._config.name}: lists {len(listed)} of {count} instances",
            )
        wanted = {uid: kind for uid, kind in listed.items() if kind in ("", *IMAGES)}
        if not all(is_valid_uid(uid) for uid in wanted):
            raise PermanentError(Reason.BAD_ANSWER, f"{self._config.name}: lists no valid UID")
        if not wanted:
            raise PermanentError(
                Reason.NOT_CT, f"{self._config.name}: no CT image among {len(listed)} instances"
            )
        return study, wanted


#: Below the root that PS3.5 B.2 gives to everybody, and nobody's: it matches no study.
_NO_STUDY = "2.25.0"


def _studies(query: SeriesQuery, finder: FindScu) -> Iterator[Dataset | None]:
    """The studies whose series are to be searched; None for a search in all at once."""
    if query.study_instance_uids:
        for uid in query.study_instance_uids:
            yield from finder.find("STUDY", _study_keys(query, "", checked_uid(uid)))
        return
    if query.series_instance_uids and not (query.from_date or query.to_date):
        yield None  # relational, where the archive can do that (PS3.4 C.4.1.2.2.1)
        return
    for dates in _date_ranges(query):
        yield from finder.find("STUDY", _study_keys(query, dates, ""))


def _series_of(
    query: SeriesQuery, study: Dataset | None, finder: FindScu, owners: _Owners
) -> Iterator[FoundSeries]:
    """What the archive lists in a study; the study itself, if its series cannot be asked for."""
    if study is None:
        study = Dataset()
    elif not is_valid_uid(text_of(study, "StudyInstanceUID")):
        yield _found(Dataset(), study)
        return
    matches = finder.find("SERIES", _series_keys(query, study))
    told = [text_of(each, "SeriesInstanceUID") for each in matches]
    uids = [uid for uid in told if is_valid_uid(uid)]
    if len(set(uids)) < len(uids):  # of several patients, it may be: the study does not tell
        study = Dataset()
    for match in matches:
        yield from owners.found(match, study)


def _study_keys(query: SeriesQuery, dates: str, study: str) -> dict[str, str]:
    keys = dict.fromkeys(_STUDY_TOLD, "") | {
        "StudyInstanceUID": study,
        "StudyDate": dates,
        "StudyDescription": query.study_description,
        "PatientID": query.patient_id,
        "AccessionNumber": query.accession_number,
    }
    if len(query.modalities) == 1:
        keys["ModalitiesInStudy"] = query.modalities[0]
    return keys


def _series_keys(query: SeriesQuery, study: Dataset) -> dict[str, str]:
    series = query.series_instance_uids
    return dict.fromkeys(_SERIES_TOLD, "") | {
        "StudyInstanceUID": text_of(study, "StudyInstanceUID"),
        "SeriesInstanceUID": "\\".join(checked_uid(uid) for uid in series),  # a list of UIDs
        "SeriesDescription": query.series_description,
        "BodyPartExamined": query.body_part,
    }


class _Owners:
    """Looks up the patients of series that were found without their study; for one search."""

    def __init__(self, finder: FindScu) -> None:
        self._finder = finder
        self._studies: dict[str, tuple[Dataset, ...]] = {}

    def found(self, match: Dataset, study: Dataset) -> Iterator[FoundSeries]:
        """A series, once for every patient that the archive has its study under."""
        for each in (study,) if text_of(study, "StudyInstanceUID") else self._of(match):
            yield _found(match, each)

    def _of(self, match: Dataset) -> tuple[Dataset, ...]:
        uid = text_of(match, "StudyInstanceUID")
        if uid not in self._studies and is_valid_uid(uid):
            keys = dict.fromkeys(_STUDY_TOLD, "") | {"StudyInstanceUID": uid}
            told = self._finder.find("STUDY", keys)
            self._studies[uid] = tuple(
                each for each in told if text_of(each, "StudyInstanceUID") == uid
            )
        return self._studies.get(uid) or (Dataset(),)


def _date_ranges(query: SeriesQuery) -> Iterator[str]:
    """Each day by itself, or the open range that was asked for (PS3.4 C.2.2.2.5)."""
    first, last = query.from_date, query.to_date
    if first is None or last is None:
        days = [f"{day:%Y%m%d}" if day else "" for day in (first, last)]
        yield "-".join(days) if any(days) else ""
        return
    for number in range((last - first).days + 1):
        yield f"{first + timedelta(days=number):%Y%m%d}"


def _found(match: Dataset, study: Dataset) -> FoundSeries:
    def told(keyword: str) -> str:
        return text_of(match, keyword) or text_of(study, keyword)

    return FoundSeries(
        study_instance_uid=told("StudyInstanceUID"),
        series_instance_uid=text_of(match, "SeriesInstanceUID"),
        modality=text_of(match, "Modality"),
        instance_count=count_of(match, "NumberOfSeriesRelatedInstances"),
        study_date=told("StudyDate"),
        facts=SeriesFacts(
            modality=text_of(match, "Modality"),
            body_part=text_of(match, "BodyPartExamined"),
            series_description=text_of(match, "SeriesDescription"),
            study_description=told("StudyDescription"),
            protocol_name=text_of(match, "ProtocolName"),
            manufacturer=text_of(match, "Manufacturer"),
        ),
        sop_classes=texts_of(study, "SOPClassesInStudy"),
        patient=FoundPatient(*(told(keyword) for keyword in _PATIENT_TOLD)),
    )
