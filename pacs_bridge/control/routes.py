"""What can be asked and said: state of the service and of a series, and an operator's hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from pacs_bridge.control.answers import Answer, CallFault, refusal, row_facts, series_facts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.series import ForceOutcome
from pacs_bridge.queue import State

#: Answered without a token.
HEALTH = "/health"
_MAX_ROWS = 1000
_DEFAULT_ROWS = 50
_SERIES = re.compile(r"/series/([0-9.]{1,64})(?:/(retry|repeat|force))?")  # PS3.5 9.1


class Routes:
    """Answers calls from the ledger.

    Parameters
    ----------
    ledger
        Opened by this process.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._actions: Mapping[str, Callable[[str], Answer]] = {
            "retry": self._retry,
            "repeat": self._repeat,
            "force": self._force,
        }

    def answer(self, method: str, path: str, query: Mapping[str, Sequence[str]]) -> Answer:
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
                call = lambda: self._series(series)  # noqa: E731
            else:
                wanted = "POST"
                call = lambda: self._steer(series, action)  # noqa: E731
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

    def _series(self, series: str) -> Answer:
        rows = self._ledger.view.series(series)
        if not rows:
            return _unknown_series()
        return Answer(HTTPStatus.OK, series_facts(self._ledger.view, rows))

    def _steer(self, series: str, action: str) -> Answer:
        if not self._ledger.view.series(series):
            return _unknown_series()
        return self._actions[action](series)

    def _retry(self, series: str) -> Answer:
        """Try what failed or waits again at once; what has results keeps them."""
        steering = self._ledger.steering
        for job_id in self._latest_jobs(series):
            if steering.retry_job(job_id) or steering.send_now(job_id):
                return self._series(series)
        return refusal(HTTPStatus.CONFLICT, CallFault.NOTHING_TO_RETRY, "nothing failed or waits")

    def _repeat(self, series: str) -> Answer:
        """Send the results again; make them again where their files were deleted."""
        for job_id in self._latest_jobs(series):
            if self._ledger.steering.repeat_job(job_id):
                return self._series(series)
        detail = "its latest revision has no result that was sent"
        return refusal(HTTPStatus.CONFLICT, CallFault.NOTHING_TO_REPEAT, detail)

    def _force(self, series: str) -> Answer:
        """Take a series as it is."""
        outcome = self._ledger.series.force(series)
        if outcome is ForceOutcome.FORCED:
            return self._series(series)
        held = outcome is ForceOutcome.NOT_HELD
        fault = CallFault.NOT_HELD if held else CallFault.SOURCES_DELETED
        return refusal(HTTPStatus.CONFLICT, fault, outcome)

    def _latest_jobs(self, series: str) -> tuple[int, ...]:
        rows = self._ledger.view.series(series)
        return tuple(
            row.job_id
            for row in rows
            if row.job_id is not None and row.revision == rows[-1].revision
        )


def _unknown_series() -> Answer:
    detail = "nothing of this series has come"
    return refusal(HTTPStatus.NOT_FOUND, CallFault.UNKNOWN_SERIES, detail)
