"""An archive with QIDO-RS and WADO-RS (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.dicomweb import json_model as model
from pacs_bridge.dicomweb.media_type import DICOM_JSON
from pacs_bridge.dicomweb.peer import WebPeer, WebPeerError, WebRequest
from pacs_bridge.dicomweb.search import Search
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.log import Log
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_retrieval import Retrieval
from pacs_bridge.sources.dicomweb_status import refusal
from pacs_bridge.sources.met_series import MetSeries
from pacs_bridge.sources.received_instance import CutInstanceError
from pacs_bridge.sources.received_series import ReceivedSeries, SizeLimits, WantedSeries
from pacs_bridge.sources.remote_archive import (
    FoundPatient,
    FoundSeries,
    SeriesQuery,
    checked_uid,
)

_OK = (200, 204, 206)
_FIELDS = (
    model.STUDY_DATE,
    model.STUDY_DESCRIPTION,
    model.SERIES_DESCRIPTION,
    model.BODY_PART,
    model.MANUFACTURER,
    model.PROTOCOL_NAME,
    model.PATIENT_ID,
    model.ISSUER_OF_PATIENT_ID,
    model.PATIENT_NAME,
    model.PATIENT_BIRTH_DATE,
    model.NUMBER_OF_SERIES_RELATED_INSTANCES,
)
_INCLUDED = tuple(("includefield", tag) for tag in _FIELDS)
_ACCEPTED = {"Accept": DICOM_JSON}
_MAX_ASKED_BYTES = 1 << 24
_MOST_INSTANCES = 100_000
#: Instances that are listed and not there, of one series.
_MOST_NOT_THERE = 16
_SERIES_KEY = "SeriesInstanceUID"
_ALL_SERIES = "/series"
#: Two patients may have got the same UIDs.
_TOLD_APART = (
    *(model.SERIES_INSTANCE_UID, model.STUDY_INSTANCE_UID),
    *(model.PATIENT_ID, model.ISSUER_OF_PATIENT_ID, model.PATIENT_BIRTH_DATE),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A series, as addresses name it."""

    study_instance_uid: str
    series_instance_uid: str
    instance_count: int | None

    @property
    def path(self) -> str:
        return f"/studies/{self.study_instance_uid}/series/{self.series_instance_uid}"


class DicomwebArchive:
    """A ``RemoteArchive`` over HTTP.

    Parameters
    ----------
    config
        Of the source.
    retry
        For what fails for a moment.
    log
        Told of series that cannot be named.
    """

    def __init__(
        self,
        config: DicomwebSourceConfig,
        retry: BriefRetry | None = None,
        log: Log | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._peer = WebPeer(config, Reason.SOURCE_UNREACHABLE)
        self._retry = retry or BriefRetry()

    def close(self) -> None:
        """End its connections; it can still be used."""
        self._peer.close()

    def find(
        self, query: SeriesQuery, check: Callable[[], None] = lambda: None
    ) -> Iterator[FoundSeries]:
        """See ``RemoteArchive.find``. Image Type, kernel and slice thickness are not given."""
        met = MetSeries(query)
        for path, keys in _searches(query):
            is_for_one = keys[:1] and keys[0][0] == _SERIES_KEY and path != _ALL_SERIES
            met.begin_answer()
            for row in self._search(check).all(path, (*keys, *_INCLUDED), _TOLD_APART):
                found = _found(row)
                if met.is_new(found):
                    yield found
                    if is_for_one:
                        break
        if met.nameless and self._log is not None:
            self._log.warning("series-without-uid", source=self._config.name, number=met.nameless)

    def fetch(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        folder: Path,
        check: Callable[[], None],
    ) -> tuple[Path, ...]:
        """See ``RemoteArchive.fetch``.

        The series is asked for as a whole, in whatever transfer syntax it is stored; instances
        that did not come with it, by the archive's own list, are then asked for one by one.
        """
        place = self._place(study_instance_uid, series_instance_uid, check)
        expected = self._instances(place, check)
        limits = SizeLimits.of(self._config.max_instance_mib, self._config.max_series_gib)
        # a list that no count confirms may be cut: then whatever is of the series is taken
        listed = None if place.instance_count is None else expected
        wanted = WantedSeries(place.study_instance_uid, series_instance_uid, listed)
        series = ReceivedSeries(folder, wanted, limits)
        retrieval = Retrieval(self._peer, series, check)
        is_whole = self._retry.run(
            lambda: _tolerant(lambda: retrieval.take(place.path), series), check
        )
        if not is_whole and listed is None:
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._config.name}: the series broke off, and no count says what is missing",
            )
        missing: list[str] = []
        for uid in sorted(expected - series.sop_instance_uids):
            check()
            self._take_one(retrieval, f"{place.path}/instances/{uid}", check)
            if uid not in series.sop_instance_uids:
                missing.append(uid)
            if len(missing) == _MOST_NOT_THERE:
                break  # what else there is would be of no use
        if missing:
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._config.name}: {len(expected - series.sop_instance_uids)} of"
                f" {len(expected)} instances did not come: {missing[:3]}",
            )
        return series.paths

    def ask(self) -> str:
        """See ``RemoteArchive.ask``: searches for one series."""
        query = (("limit", "1"), ("Modality", "CT"))
        with self._peer.asked(WebRequest("GET", "/series", query, _ACCEPTED)) as answer:
            if answer.status not in _OK:
                raise refusal(answer, self._peer.has_renewable_credentials)
            if answer.status != 204 and not answer.media_type.is_json:
                raise PermanentError(Reason.BAD_ANSWER, f"{answer.where}: no DICOM JSON")
            rows = answer.json(_MAX_ASKED_BYTES)
        return f"QIDO-RS answers, {'some' if rows else 'no'} CT series"

    def _take_one(self, retrieval: Retrieval, path: str, check: Callable[[], None]) -> None:
        """One instance; one that the archive lists and does not have is missing, not an error."""
        try:
            self._retry.run(lambda: retrieval.take(path), check)
        except PermanentError as error:
            if error.reason is not Reason.SOURCE_MISSING:
                raise

    def _place(self, study: str, series: str, check: Callable[[], None]) -> _Place:
        """Where the series is, and how many instances it has by the list of series."""
        path = f"/studies/{checked_uid(study)}/series" if study else "/series"
        query = ((_SERIES_KEY, checked_uid(series)), _INCLUDED[-1])
        for row in self._search(check).all(path, query, _TOLD_APART):
            found = _found(row)
            is_of_study = found.study_instance_uid in ("", study) or not study
            if checked_uid(found.series_instance_uid) == series and is_of_study:
                return _Place(
                    study or checked_uid(found.study_instance_uid), series, found.instance_count
                )
        raise PermanentError(Reason.SOURCE_MISSING, f"{self._config.name}: has no series {series}")

    def _instances(self, place: _Place, check: Callable[[], None]) -> frozenset[str]:
        """SOP Instance UIDs of the series by the list of instances."""
        rows = self._search(check).all(
            f"{place.path}/instances", (), (model.SOP_INSTANCE_UID,), _MOST_INSTANCES
        )
        listed = frozenset(checked_uid(model.text(row, model.SOP_INSTANCE_UID)) for row in rows)
        if len(listed) < max(place.instance_count or 0, 1):
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._config.name}: lists {len(listed)} of {place.instance_count} instances",
            )
        return listed

    def _search(self, check: Callable[[], None]) -> Search:
        return Search(
            self._peer,
            self._config.page_size,
            lambda answer: refusal(answer, self._peer.has_renewable_credentials),
            lambda action: self._retry.run(action, check),
            check,
        )


def _tolerant(take: Callable[[], None], series: ReceivedSeries) -> bool:
    """Take the series; what does not come of it is due one by one. False if it broke off.

    An answer may break off after some instances, or an instance in it, and a service may refuse
    to give so much at once (413) and still give each instance.
    """
    before = len(series.sop_instance_uids)
    try:
        take()
    except (WebPeerError, CutInstanceError) as error:
        must_wait = isinstance(error, WebPeerError) and error.wait_s > 0
        if must_wait or len(series.sop_instance_uids) == before:
            raise
        return False
    except PermanentError as error:
        if error.reason is not Reason.SOURCE_REFUSED:
            raise
    return True


def _searches(query: SeriesQuery) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Resources and matching keys; a list of values is a search each, as not all know lists."""
    fixed = tuple(
        (name, value)
        for name, value in (
            ("StudyDate", _date_range(query)),
            ("StudyDescription", query.study_description),
            ("SeriesDescription", query.series_description),
            ("BodyPartExamined", query.body_part),
            ("PatientID", query.patient_id),
            ("AccessionNumber", query.accession_number),
        )
        if value
    )
    for study in query.study_instance_uids or ("",):
        path = f"/studies/{checked_uid(study)}/series" if study else _ALL_SERIES
        for series in query.series_instance_uids or ("",):
            for modality in ("",) if series else query.modalities or ("",):
                keys = ((_SERIES_KEY, series), ("Modality", modality))
                yield path, (*((name, value) for name, value in keys if value), *fixed)


def _date_range(query: SeriesQuery) -> str:
    """Range matching (PS3.4 C.2.2.2.5)."""
    if query.from_date is None and query.to_date is None:
        return ""
    days = [f"{day:%Y%m%d}" if day else "" for day in (query.from_date, query.to_date)]
    return "-".join(days)


def _found(row: dict[str, Any]) -> FoundSeries:
    modality = model.text(row, model.MODALITY)
    return FoundSeries(
        study_instance_uid=model.text(row, model.STUDY_INSTANCE_UID),
        series_instance_uid=model.text(row, model.SERIES_INSTANCE_UID),
        modality=modality,
        instance_count=model.whole_number(row, model.NUMBER_OF_SERIES_RELATED_INSTANCES),
        study_date=model.text(row, model.STUDY_DATE),
        facts=SeriesFacts(
            modality=modality,
            body_part=model.text(row, model.BODY_PART),
            series_description=model.text(row, model.SERIES_DESCRIPTION),
            study_description=model.text(row, model.STUDY_DESCRIPTION),
            protocol_name=model.text(row, model.PROTOCOL_NAME),
            manufacturer=model.text(row, model.MANUFACTURER),
        ),
        sop_classes=model.texts(row, model.SOP_CLASSES_IN_STUDY),
        patient=FoundPatient(
            patient_id=model.text(row, model.PATIENT_ID),
            issuer=model.text(row, model.ISSUER_OF_PATIENT_ID),
            name=model.person_name(row, model.PATIENT_NAME),
            birth_date=model.text(row, model.PATIENT_BIRTH_DATE),
        ),
    )
