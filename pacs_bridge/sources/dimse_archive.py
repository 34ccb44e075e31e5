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
from pacs_bridge.sources.find_scu import FindScu, count_of, text_of, texts_of
from pacs_bridge.sources.get_scu import GetScu
from pacs_bridge.sources.move_scu import MoveScu
from pacs_bridge.sources.received_series import ReceivedSeries, SizeLimits, WantedSeries
from pacs_bridge.sources.remote_archive import FoundSeries, SeriesQuery, checked_uid
from pacs_bridge.sources.sub_operations import SubOperations

_STUDY_TOLD = ("StudyInstanceUID", "StudyDate", "StudyDescription", "ModalitiesInStudy")
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

    def find(self, query: SeriesQuery) -> Iterator[FoundSeries]:
        """See ``RemoteArchive.find``. Image Type, kernel and slice thickness are not given.

        Studies are searched day by day where the query names a first and a last day, then the
        series of each: no answer is larger than a day of the archive.
        """
        seen: set[tuple[str, str]] = set()
        nameless = 0
        with self._finder() as finder:
            for study in _studies(query, finder):
                for match in finder.find("SERIES", _series_keys(query, study), _nothing):
                    found = _found(match, study)
                    if not found.is_named:
                        nameless += 1
                    elif _is_wanted(found, query) and found.key not in seen:
                        seen.add(found.key)
                        yield found
        if nameless:
            self._log.warning("series-without-uid", source=self._config.name, number=nameless)

    def fetch(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        folder: Path,
        check: Callable[[], None],
    ) -> tuple[Path, ...]:
        """See ``RemoteArchive.fetch``. Only CT images are fetched, as the listener takes them."""
        with self._finder() as finder:
            study, expected = self._expected(finder, study_instance_uid, series_instance_uid, check)
        limits = SizeLimits.of(self._config.max_instance_mib, self._config.max_series_gib)
        series = ReceivedSeries(folder, WantedSeries(study, series_instance_uid, expected), limits)
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.StudyInstanceUID = study
        identifier.SeriesInstanceUID = series_instance_uid

        def retrieve() -> None:
            told = self._retrieve(identifier, series, check)
            missing = expected - series.sop_instance_uids
            if missing:
                raise TransientError(
                    Reason.SOURCE_INCOMPLETE,
                    f"{self._config.name}: {len(missing)} of {len(expected)} instances did not"
                    f" come (sub-operations: {told}): {sorted(missing)[:3]}",
                )

        self._retry.run(retrieve, check)
        return series.paths

    def ask(self) -> str:
        """See ``RemoteArchive.ask``: searches for a study that there is not."""
        with self._finder() as finder:
            finder.find("STUDY", {"StudyInstanceUID": _NO_STUDY}, _nothing)
        return f"C-FIND answers; series come by {self._config.retrieve.upper()}"

    @contextmanager
    def _finder(self) -> Iterator[FindScu]:
        finder = FindScu(self._config, self._calling_ae_title, self._retry)
        try:
            yield finder
        finally:
            finder.close()

    def _retrieve(
        self, identifier: Dataset, series: ReceivedSeries, check: Callable[[], None]
    ) -> SubOperations:
        if self._config.retrieve is RetrieveBy.MOVE:
            scu = MoveScu(self._config, self._calling_ae_title, self._log)
            return scu.retrieve(identifier, series, check)
        return GetScu(self._config, self._calling_ae_title).retrieve(identifier, series, check)

    def _expected(
        self, finder: FindScu, study: str, series: str, check: Callable[[], None]
    ) -> tuple[str, frozenset[str]]:
        """Study of the series, and the SOP Instance UIDs of its images by the archive's lists."""
        keys = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": checked_uid(series),
            "NumberOfSeriesRelatedInstances": "",
        }
        matches = [
            each
            for each in finder.find("SERIES", keys, check)
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
        images = finder.find("IMAGE", keys, check)
        listed = {text_of(each, "SOPInstanceUID"): text_of(each, "SOPClassUID") for each in images}
        listed.pop("", None)
        if len(listed) < max(count or 0, 1):
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._config.name}: lists {len(listed)} of {count} instances",
            )
        wanted = frozenset(uid for uid, sop_class in listed.items() if sop_class in ("", *IMAGES))
        if not all(is_valid_uid(uid) for uid in wanted):
            raise PermanentError(Reason.BAD_ANSWER, f"{self._config.name}: lists no valid UID")
        if not wanted:
            raise PermanentError(
                Reason.NOT_CT, f"{self._config.name}: no CT image among {len(listed)} instances"
            )
        return study, wanted


#: Below the root that PS3.5 B.2 gives to everybody, and nobody's: it matches no study.
_NO_STUDY = "2.25.0"


def _studies(query: SeriesQuery, finder: FindScu) -> Iterator[Dataset]:
    """The studies whose series are to be searched."""
    if query.study_instance_uids:
        for uid in query.study_instance_uids:
            yield from finder.find("STUDY", _study_keys(query, "", checked_uid(uid)), _nothing)
        return
    if query.series_instance_uids and not (query.from_date or query.to_date):
        yield Dataset()  # relational, where the archive can do that (PS3.4 C.4.1.2.2.1)
        return
    for dates in _date_ranges(query):
        yield from finder.find("STUDY", _study_keys(query, dates, ""), _nothing)


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


def _date_ranges(query: SeriesQuery) -> Iterator[str]:
    """Each day by itself, or the open range that was asked for (PS3.4 C.2.2.2.5)."""
    first, last = query.from_date, query.to_date
    if first is None or last is None:
        days = [f"{day:%Y%m%d}" if day else "" for day in (first, last)]
        yield "-".join(days) if any(days) else ""
        return
    for number in range((last - first).days + 1):
        yield f"{first + timedelta(days=number):%Y%m%d}"


def _is_wanted(found: FoundSeries, query: SeriesQuery) -> bool:
    """Whether the archive has not given more than what was asked for."""
    return (
        not query.modalities or found.modality in ("", *query.modalities)
    ) and found.series_instance_uid in (query.series_instance_uids or [found.series_instance_uid])


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
    )


def _nothing() -> None:
    """Nothing to look at between two answers of a search."""
