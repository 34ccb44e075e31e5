"""Tells the bridge how many images a series has: one that lacks some is held, however it ends.

A store job of Orthanc that stops half-way releases its association like one that is done. So the
bridge is told before the job, and until it has heard, also for a while after such an end: it waits
for its quiet period before it takes what has come for the whole. Jobs wait for a bridge that is
silent, for a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from pacs_bridge.plugin.bridge_client import (
    BridgeClient,
    BridgeUnreachableError,
    UnaskableError,
)
from pacs_bridge.plugin.identity import Identity, identity_of
from pacs_bridge.plugin.notes import Found, Note
from pacs_bridge.plugin.server import OrthancServer

#: How long after the end of a store job the bridge is still told: no quiet period is longer.
_LINGER_S = 120.0
#: How long jobs wait for a bridge that hears nothing: it may be that only its control is away.
#: A silence that was last met longer ago is another one.
_HOLD_S = 60.0
#: By which a bridge, or a proxy before it, says that it cannot listen to us now.
_DEAF = (401, 502, 503, 504)
#: By which, or by more, it says that it has a fault: others may be heard.
_FAULT = 500


class Announced(Enum):
    """What came of an announcement."""

    HEARD = auto()
    NOTHING_THERE = auto()  #: an older bridge, which keeps this of a series that is there only
    UNHEARD = auto()  #: it cannot be asked, or not now
    FAULT = auto()  #: the bridge has a fault at this one; others may be heard
    REFUSED = auto()  #: it will not hear this, whenever it is said
    OTHER_PATIENT = auto()  #: the bridge has the series of another patient or study


@dataclass(frozen=True, slots=True)
class _Telling:
    """What the bridge has not heard yet."""

    identity: Identity
    instance_count: int
    is_backlog: bool  #: clinical work goes before it
    until_s: float = math.inf  #: steady
    faulty_since_s: float | None = None  #: steady; None: the bridge has no fault at this one


class Announcer:
    """Announces series; one thread may.

    Parameters
    ----------
    server
        Orthanc.
    client
        The bridge; None if it cannot be asked.
    steady_s
        Time that never steps.
    """

    def __init__(
        self,
        server: OrthancServer,
        client: BridgeClient | None,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._client = client
        self._steady_s = steady_s
        self._tellings: dict[str, _Telling | None] = {}  # by series; None: it was heard
        self._silent_since_s: float | None = None  # steady; None: the bridge has answered
        self._silent_at_s = -math.inf  # steady; when it was last met

    @property
    def is_insisting(self) -> bool:
        """Whether something is still to be told."""
        return any(telling is not None for telling in self._tellings.values())

    @property
    def can_ask(self) -> bool:
        """Whether there is a control that can be asked."""
        return self._client is not None

    def holds(self, series: str) -> bool:
        """Whether a series had better not be sent: the bridge does not hear of it just now."""
        telling = self._tellings.get(series)
        faulty_since_s = None if telling is None else telling.faulty_since_s
        begun_s = (self._silent_since_s, faulty_since_s)
        return any(one is not None and self._steady_s() - one < _HOLD_S for one in begun_s)

    def here_count(self, series: str) -> int | None:
        """How many instances of a series the bridge has, or knows to lack; None if unknown.

        Raises
        ------
        ServerError
            If Orthanc does not answer.
        """
        facts = None if self._client is None else self._server.find(f"/series/{series}")
        if self._client is None or facts is None:
            return None
        try:
            answer = self._client.series(identity_of(self._server, facts))
        except BridgeUnreachableError:
            return None
        counts = [answer.body.get(name) for name in ("instance_count", "owed_count")]
        known = [count for count in counts if isinstance(count, int)]
        return sum(known) if answer.status == 200 and len(known) == len(counts) else None

    def announce(self, note: Note) -> Announced:
        """Say how many instances of a series are sent, until it is heard; ``insist`` repeats it.

        Raises
        ------
        ServerError
            If Orthanc does not answer.
        """
        facts = None if self._client is None else self._server.find(f"/series/{note.series}")
        if self._client is None or facts is None:
            return Announced.UNHEARD
        identity, is_backlog = identity_of(self._server, facts), note.found is Found.EXISTING
        telling = _Telling(identity, note.instance_count, is_backlog)
        if (before := self._tellings.get(note.series)) is not None:
            telling = replace(telling, faulty_since_s=before.faulty_since_s)
        return self._tell(self._client, note.series, telling)

    def ensure(self, note: Note) -> None:
        """Announce a series that is being sent, unless this was done; raises as ``announce``."""
        if note.series not in self._tellings:
            self.announce(note)

    def transfer_ended(self, series: str, is_partial: bool) -> None:
        """A series is no longer sent; of one that may be here in part the bridge still hears."""
        telling = self._tellings.pop(series, None)
        if telling is not None and is_partial:
            until_s = self._steady_s() + _LINGER_S
            self._tellings[series] = replace(telling, until_s=until_s)

    def insist(self) -> None:
        """Say again what was not heard; a bridge that does not answer is asked only once."""
        for series, telling in list(self._tellings.items()):
            if telling is None or self._client is None:
                continue
            if telling.until_s < self._steady_s():
                del self._tellings[series]
                continue
            outcome = self._tell(self._client, series, telling)
            if outcome is Announced.UNHEARD:
                self._tellings[series] = self._tellings.pop(series)  # the next time others first
                return
            has_ended = telling.until_s < math.inf
            if has_ended and outcome is not Announced.FAULT:
                del self._tellings[series]

    def _tell(self, client: BridgeClient, series: str, telling: _Telling) -> Announced:
        """Say it, and keep what was not heard."""
        outcome, now_s = _told(client, telling), self._steady_s()
        if outcome is Announced.UNHEARD:
            if self._silent_since_s is None or now_s - self._silent_at_s > _HOLD_S:
                self._silent_since_s = now_s
            self._silent_at_s = now_s
        elif outcome is not Announced.FAULT:
            self._silent_since_s = None
        if outcome is not Announced.FAULT:
            telling = replace(telling, faulty_since_s=None)
        elif telling.faulty_since_s is None:
            telling = replace(telling, faulty_since_s=now_s)
        is_kept = outcome in (Announced.UNHEARD, Announced.NOTHING_THERE, Announced.FAULT)
        self._tellings[series] = telling if is_kept else None
        return outcome


def _told(client: BridgeClient, telling: _Telling) -> Announced:
    try:
        answer = client.expect(telling.identity, telling.instance_count, telling.is_backlog)
    except UnaskableError:
        return Announced.REFUSED
    except BridgeUnreachableError:
        return Announced.UNHEARD
    if answer.status == 200:
        return Announced.HEARD
    if answer.status in _DEAF:
        return Announced.UNHEARD
    if answer.status >= _FAULT:
        return Announced.FAULT
    reason = answer.body.get("reason")
    if reason == "other-patient":
        return Announced.OTHER_PATIENT
    return Announced.NOTHING_THERE if reason == "unknown-series" else Announced.REFUSED
