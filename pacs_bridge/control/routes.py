"""What can be asked and said: state of the service and of a series, and an operator's hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from pacs_bridge.control.answers import (
    Answer,
    CallFault,
    refusal,
    row_facts,
    series_facts,
    steered_jobs,
)
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.announcements import Announcement
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.series import ForceOutcome
from pacs_bridge.ledger.steering import RepeatOutcome
from pacs_bridge.ledger.views import JobView
from pacs_bridge.queue import Priority, State

#: Answered without a token.
HEALTH = "/health"
_MAX_ROWS = 1000
_DEFAULT_ROWS = 50
_MAX_INSTANCES = 1_000_000
_SERIES = re.compile(r"/series/([0-9.]{1,64})(?:/(retry|repeat|force|expect))?")  # PS3.5 9.1


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose series a caller means; None where it does not say."""

    study_instance_uid: str | None = None
    patient_id: str | None = None


class Routes:
    """Answers calls from the ledger.

    Parameters
    ----------
    ledger
        Opened by this process.
    identity
        Hides Patient IDs as the ledger does.
    """

    def __init__(self, ledger: Ledger, identity: IdentityHash) -> None:
        self._ledger = ledger
        self._identity = identity
        self._actions: Mapping[str, Callable[[str, Whose], Answer]] = {
            "retry": self._retry,
            "repeat": self._repeat,
            "force": self._force,
        }

    def answer(
        self, method: str, path: str, query: Mapping[str, Sequence[str]], whose: Whose
    ) -> Answer:
        """What a call that has shown its token is told.

        Raises
        ------
        BridgeError
            If the ledger cannot be used.
        """
        wanted = "GET"
        call: Callable[[], Answer]
        if path == "/status":
            call = self._status
        elif path == "/series":
            call = lambda: self._list(query)  # noqa: E731
        elif match := _SERIES.fullmatch(path):
            series, action = match.groups()
            if action is None:
                call = lambda: self._series(series, whose)  # noqa: E731
            else:
                wanted = "POST"
                call = lambda: self._steer(series, action, query, whose)  # noqa: E731
        else:
            return refusal(HTTPStatus.NOT_FOUND, CallFault.UNKNOWN_ROUTE, "no such route")
        if method != wanted:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, CallFault.METHOD, f"use {wanted}")
        return call()

    def _status(self) -> Answer:
        view = self._ledger.view
        facts = {
            "waiting": view.waiting(),
            "states": dict(view.state_counts()),
            "instances": dict(view.counts()),
        }
        return Answer(HTTPStatus.OK, facts)

    def _list(self, query: Mapping[str, Sequence[str]]) -> Answer:
        unknown = set(query) - {"state", "limit"}
        if unknown:
            detail = f"unknown: {', '.join(sorted(unknown))[:100]}; known are state and limit"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        try:
            states = [State(name) for name in query.get("state", ())] or None
            limit = int(query["limit"][-1]) if "limit" in query else _DEFAULT_ROWS
        except ValueError:
            detail = f"state is one of {', '.join(State)}; limit is a number"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        if not 1 <= limit <= _MAX_ROWS:
            detail = f"limit is 1 to {_MAX_ROWS}"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        rows = self._ledger.view.jobs(states, limit)
        return Answer(HTTPStatus.OK, {"series": [row_facts(row) for row in rows]})

    def _series(self, series: str, whose: Whose) -> Answer:
        rows = self._ledger.view.series(series)
        theirs = self._theirs(series, rows, whose)
        if not theirs:
            return _other_patient() if rows else _unknown_series()
        return Answer(HTTPStatus.OK, series_facts(self._ledger.view, theirs))

    def _is_others(self, series: str, whose: Whose) -> bool:
        """Whether what was received of a series is not of whom the caller means."""
        here = self._ledger.view.identity(series)
        if here is None:
            return False
        study, patient = whose.study_instance_uid, whose.patient_id
        return (study is not None and study != here.study_instance_uid) or (
            patient is not None and self._identity.of(patient) != here.patient_key
        )

    def _theirs(self, series: str, rows: Sequence[JobView], whose: Whose) -> Sequence[JobView]:
        """What is known of a series and is of whom the caller means.

        Of what an archive run took from elsewhere only the study is known, if at all.
        """
        if self._is_others(series, whose):
            return ()
        if whose == Whose():
            return rows
        studies = self._ledger.view.studies_elsewhere(series)
        return [row for row in rows if _is_of(row, studies, whose.study_instance_uid)]

    def _steer(
        self, series: str, action: str, query: Mapping[str, Sequence[str]], whose: Whose
    ) -> Answer:
        if self._is_others(series, whose):
            return _other_patient()
        if action == "expect":
            return self._expect(series, query, whose)
        rows = self._ledger.view.series(series)
        if not rows:
            return _unknown_series()
        if not self._theirs(series, rows, whose):
            return _other_patient()
        return self._actions[action](series, whose)

    def _retry(self, series: str, whose: Whose) -> Answer:
        """Try what failed or waits again at once; what has results keeps them."""
        steering = self._ledger.steering
        jobs = self._steered_jobs(series, whose)
        is_tried = any(steering.retry_job(job_id) for job_id in jobs)  # the first one that failed
        is_sent = any(steering.send_now(job_id) for job_id in jobs)
        if is_tried or is_sent:
            return self._series(series, whose)
        return refusal(HTTPStatus.CONFLICT, CallFault.NOTHING_TO_RETRY, "nothing failed or waits")

    def _repeat(self, series: str, whose: Whose) -> Answer:
        """Send the results again; make them again where their files were deleted."""
        for job_id in self._steered_jobs(series, whose):
            outcome = self._ledger.steering.repeat_job(job_id)
            if outcome is RepeatOutcome.REPEATED:
                return self._series(series, whose)
            if outcome is RepeatOutcome.SOURCES_DELETED:
                return refusal(HTTPStatus.CONFLICT, CallFault.SOURCES_DELETED, outcome)
        detail = "its latest revision has no result that was sent"
        return refusal(HTTPStatus.CONFLICT, CallFault.NOTHING_TO_REPEAT, detail)

    def _force(self, series: str, whose: Whose) -> Answer:
        """Take a series as it is."""
        outcome = self._ledger.series.force(series)
        if outcome is ForceOutcome.FORCED:
            return self._series(series, whose)
        held = outcome is ForceOutcome.NOT_HELD
        fault = CallFault.NOT_HELD if held else CallFault.SOURCES_DELETED
        return refusal(HTTPStatus.CONFLICT, fault, outcome)

    def _expect(self, series: str, query: Mapping[str, Sequence[str]], whose: Whose) -> Answer:
        """Note how many instances a series has where it comes from; with fewer it is held.

        It may be said before any of them has come. It may be in less of a hurry than its route.
        """
        text = query.get("instances", ("",))[-1]
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _MAX_INSTANCES):
            detail = f"instances is 1 to {_MAX_INSTANCES}"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        try:
            priority = Priority(query["priority"][-1]) if "priority" in query else None
        except ValueError:
            detail = f"priority is one of {', '.join(Priority)}"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        patient = None if whose.patient_id is None else self._identity.of(whose.patient_id)
        study = whose.study_instance_uid
        said = Announcement(series, int(text[:9]), priority, study, patient)
        if not self._ledger.series.expect(said):  # its first image came just now
            return _other_patient()
        rows = self._theirs(series, self._ledger.view.series(series), whose)
        if not rows:
            return Answer(HTTPStatus.OK, {"series_instance_uid": series, "state": None})
        return Answer(HTTPStatus.OK, series_facts(self._ledger.view, rows))

    def _steered_jobs(self, series: str, whose: Whose) -> tuple[int, ...]:
        rows = self._ledger.view.series(series)
        return steered_jobs(self._theirs(series, rows, whose))


def _is_of(row: JobView, studies: Mapping[int, str], study: str | None) -> bool:
    """Whether a row is of what was received, or of a job for a study that is named here."""
    if row.job_id is None or row.job_id not in studies:
        return True
    return bool(study) and studies[row.job_id] == study


def _unknown_series() -> Answer:
    detail = "nothing of this series has come"
    return refusal(HTTPStatus.NOT_FOUND, CallFault.UNKNOWN_SERIES, detail)


def _other_patient() -> Answer:
    detail = "the series came here with another patient or study"
    return refusal(HTTPStatus.CONFLICT, CallFault.OTHER_PATIENT, detail)
