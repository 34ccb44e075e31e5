"""Tells the bridge how many images a series has: one that lacks some is held, however it ends.

A store job of Orthanc that stops half-way releases its association like one that is done.
"""

from __future__ import annotations

from enum import Enum, auto

from pacs_bridge.plugin.bridge_client import BridgeClient, BridgeUnreachableError
from pacs_bridge.plugin.identity import identity_of
from pacs_bridge.plugin.server import OrthancServer


class Announced(Enum):
    """What came of an announcement."""

    HEARD = auto()
    UNHEARD = auto()  #: the bridge has nothing of the series yet, or cannot be asked
    OTHER_PATIENT = auto()  #: the bridge has the series of another patient or study


class Announcer:
    """Announces series.

    Parameters
    ----------
    server
        Orthanc.
    client
        The bridge; None if it cannot be asked.
    """

    def __init__(self, server: OrthancServer, client: BridgeClient | None) -> None:
        self._server = server
        self._client = client

    def announce(self, series: str, instance_count: int) -> Announced:
        """Say how many instances of a series, by Orthanc's id, are sent.

        Raises
        ------
        ServerError
            If Orthanc does not answer.
        """
        facts = None if self._client is None else self._server.find(f"/series/{series}")
        if self._client is None or facts is None:
            return Announced.UNHEARD
        try:
            answer = self._client.expect(identity_of(self._server, facts), instance_count)
        except BridgeUnreachableError:
            return Announced.UNHEARD
        if answer.status == 200:
            return Announced.HEARD
        is_other = answer.body.get("reason") == "other-patient"
        return Announced.OTHER_PATIENT if is_other else Announced.UNHEARD
