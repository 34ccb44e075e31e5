"""What the plugin adds to Orthanc's REST API, below ``/pacs-bridge``."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pacs_bridge.plugin.bridge_client import BridgeAnswer, BridgeClient, BridgeUnreachableError
from pacs_bridge.plugin.cross_site import is_cross_site
from pacs_bridge.plugin.identity import identity_of
from pacs_bridge.plugin.notes import Note, NoteBook
from pacs_bridge.plugin.server import LeavingError, OrthancServer, ServerError

ROUTE = "/pacs-bridge/(.*)"
#: Calls that may wait for the bridge at the same time: Orthanc has 50 threads for all its callers.
_MAX_CALLS = 4
_BUSY = f"{_MAX_CALLS} calls wait for the bridge already"
_SERIES = re.compile(r"series/([0-9a-f-]{44})(?:/(start|repeat|retry|force))?")


class RouteFault(StrEnum):
    """Why a call was not answered as it wished."""

    UNKNOWN_ROUTE = "unknown-route"
    METHOD = "method"
    UNKNOWN_SERIES = "unknown-series"
    NOT_CT = "not-ct"
    NO_CONTROL = "no-control"  #: the settings name no ControlUrl
    BRIDGE_UNREACHABLE = "bridge-unreachable"
    NOT_CONFIGURED = "not-configured"
    BUSY = "busy"
    CROSS_SITE = "cross-site"  #: a page of another site had a browser make the call
    LEAVING = "leaving"  #: Orthanc ends
    NOT_NOTED = "not-noted"  #: the note could not be written
    ORTHANC = "orthanc"  #: Orthanc itself refused


class RestOutput(Protocol):
    """What is used of Orthanc's object of this name."""

    def AnswerBuffer(self, answer: str, mime: str) -> None:
        """Status 200."""
        ...

    def SetHttpHeader(self, key: str, value: str) -> None:
        """A header of the answer."""
        ...

    def SendHttpStatus(self, *arguments: object) -> None:
        """Another status, with a body."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and what is said with it."""

    status: int
    body: Mapping[str, object]


def refusal(status: int, reason: str, detail: str) -> Answer:
    """Why not."""
    return Answer(status, {"reason": reason, "detail": detail})


def send(output: RestOutput, answer: Answer) -> None:
    """Give an answer, as JSON."""
    body = json.dumps(answer.body)
    if answer.status == 200:
        output.AnswerBuffer(body, "application/json")
        return
    output.SetHttpHeader("Content-Type", "application/json")
    try:
        output.SendHttpStatus(answer.status, body.encode("ascii"))
    except TypeError:  # until version 4.1 of the Python plugin
        output.SendHttpStatus(answer.status, body, len(body))


class _BusyError(Exception):
    """Enough calls wait for the bridge."""


class Routes:
    """Answers calls; Orthanc calls from many threads at once.

    Parameters
    ----------
    server
        Orthanc.
    notes
        What is to be sent.
    client
        The bridge; None if it cannot be asked.
    wake
        Told that there is something to send.
    status
        What is known of the plugin itself.
    now_s
        Time of day.
    """

    def __init__(
        self,
        server: OrthancServer,
        notes: NoteBook,
        client: BridgeClient | None,
        wake: Callable[[], None],
        status: Callable[[], Mapping[str, object]],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._notes = notes
        self._client = client
        self._wake = wake
        self._status = status
        self._now_s = now_s
        self._places = threading.BoundedSemaphore(_MAX_CALLS)

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """What a call is told.

        Parameters
        ----------
        method
            Of HTTP.
        path
            What follows ``/pacs-bridge/``.
        headers
            Of the call, with names in lower case, as Orthanc gives them.
        """
        if method != "GET" and is_cross_site(headers):
            return refusal(403, RouteFault.CROSS_SITE, "a page of another site made this call")
        try:
            return self._routed(method, path.rstrip("/"))
        except ServerError as error:
            return refusal(502, RouteFault.ORTHANC, str(error))
        except LeavingError:
            return refusal(503, RouteFault.LEAVING, "Orthanc is ending")

    def _routed(self, method: str, path: str) -> Answer:
        match = _SERIES.fullmatch(path)
        if path != "status" and match is None:
            return refusal(404, RouteFault.UNKNOWN_ROUTE, "no such route")
        action = match[2] if match else None
        wanted = "GET" if action is None else "POST"
        if method != wanted:
            # 405 would come without a word: Orthanc lets plugins say nothing with it
            return refusal(400, RouteFault.METHOD, f"use {wanted}")
        if match is None:
            return Answer(200, {**self._status(), "bridge": self._asked(BridgeClient.status)})
        series = self._server.find(f"/series/{match[1]}")
        if series is None:
            return refusal(404, RouteFault.UNKNOWN_SERIES, "Orthanc has no such series")
        if action is None:
            return Answer(200, self._state(series))
        if action == "start":
            return self._start(series)
        return self._steer(series, action)

    def _state(self, series: Mapping[str, Any]) -> Mapping[str, object]:
        identity = identity_of(self._server, series)
        return {
            "series": series["ID"],
            "series_instance_uid": identity.series_uid,
            "is_ct": series["MainDicomTags"].get("Modality") == "CT",
            "transfer": _transfer(self._notes.get(series["ID"])),
            "bridge": self._asked(lambda client: client.series(identity)),
        }

    def _start(self, series: Mapping[str, Any]) -> Answer:
        """Have a series sent, whether it was before or not."""
        if series["MainDicomTags"].get("Modality") != "CT":
            return refusal(409, RouteFault.NOT_CT, "its modality is not CT")
        try:
            self._notes.add(series["ID"], self._now_s())
        except OSError as error:
            return refusal(500, RouteFault.NOT_NOTED, f"the notes: {error.strerror}")
        self._wake()
        return Answer(200, {"series": series["ID"], "transfer": _transfer_of(self._notes, series)})

    def _steer(self, series: Mapping[str, Any], action: str) -> Answer:
        if self._client is None:
            return refusal(409, RouteFault.NO_CONTROL, "the settings name no ControlUrl")
        identity = identity_of(self._server, series)
        try:
            with self._place():
                answer = self._client.steer(identity, action)
            if action == "force" and answer.status == 200:
                self._notes.force(series["ID"])
        except _BusyError:
            return refusal(503, RouteFault.BUSY, _BUSY)
        except BridgeUnreachableError as error:
            return refusal(502, RouteFault.BRIDGE_UNREACHABLE, str(error))
        except OSError as error:
            return refusal(500, RouteFault.NOT_NOTED, f"the notes: {error.strerror}")
        return _passed_on(answer)

    def _asked(self, question: Callable[[BridgeClient], BridgeAnswer]) -> Mapping[str, object]:
        """What the bridge says, or why it says nothing."""
        if self._client is None:
            return {"reason": RouteFault.NO_CONTROL, "detail": "the settings name no ControlUrl"}
        try:
            with self._place():
                answer = question(self._client)
        except _BusyError:
            return {"reason": RouteFault.BUSY, "detail": _BUSY}
        except BridgeUnreachableError as error:
            return {"reason": RouteFault.BRIDGE_UNREACHABLE, "detail": str(error)}
        return answer.body

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places of those that wait for the bridge."""
        if not self._places.acquire(blocking=False):
            raise _BusyError
        try:
            yield
        finally:
            self._places.release()


def _passed_on(answer: BridgeAnswer) -> Answer:
    # A token that is refused is between us and the bridge, and no matter of Orthanc's users.
    return Answer(502 if answer.status in (401, 500) else answer.status, answer.body)


def _transfer_of(notes: NoteBook, series: Mapping[str, Any]) -> Mapping[str, object] | None:
    return _transfer(notes.get(series["ID"]))


def _transfer(note: Note | None) -> Mapping[str, object] | None:
    """Where a series stands on its way to the bridge; None if it is not on its way."""
    if note is None:
        return None
    return {
        "stage": note.stage,
        "attempts": note.attempts,
        "reason": note.reason,
        "detail": note.detail,
        "due_s": note.due_s,
        "job": note.job,
    }
