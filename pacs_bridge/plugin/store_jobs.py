"""Store jobs of Orthanc: begun, looked after, and judged when they have ended."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pacs_bridge.plugin.announcer import Announcer
from pacs_bridge.plugin.notes import Note
from pacs_bridge.plugin.server import OrthancServer

_PRIORITY = -10  # below 0, which Orthanc's other jobs have
#: How Orthanc tells the answer to a C-STORE (PS3.7 9.1.1.1.9) by which a job failed.
_STATUS = re.compile(r"status 0x([0-9A-Fa-f]{4})")
#: Out of resources (PS3.4 table B.2-1), and a fault of the bridge's own, as with a damaged ledger
#: (processing failure, PS3.7 annex C): another time it may be taken.
_LATER = ("A7", "0110")
#: How often what others the bridge may lack are sent without its having more.
_MAX_VAIN = 5
_MAX_ENDED = 10_000


class CarrierFault(StrEnum):
    """Why a series is not on its way."""

    REFUSED = "store-refused"  #: Orthanc did not make the job, as with an unknown modality
    FAILED = "store-failed"  #: the job failed, as when the bridge is down
    PARTIAL = "store-partial"  #: the bridge refused some instances, and will again
    OTHER_PATIENT = "other-patient"  #: the bridge has this series of another patient or study
    UNTOLD = "control-unheard"  #: not begun: the bridge does not hear yet how much will come
    ORTHANC = "orthanc"  #: Orthanc does not say what is asked of this series
    VANISHED = "store-vanished"  #: Orthanc no longer knows the job, nor how it ended


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a job."""

    note: Note  #: by which the series is sent again, if it is
    fault: CarrierFault | None = None  #: None: the series has arrived
    detail: str = ""
    is_final: bool = False  #: it would come to the same again


class StoreJobs:
    """The store jobs; Orthanc may tell of their ends from any thread.

    Parameters
    ----------
    server
        Orthanc.
    announcer
        Asked how many instances the bridge has.
    modality
        The bridge's listener, as Orthanc names it.
    """

    def __init__(self, server: OrthancServer, announcer: Announcer, modality: str) -> None:
        self._server = server
        self._announcer = announcer
        self._modality = modality
        self._lock = threading.Lock()
        self._ended: dict[str, bool] = {}  # jobs that Orthanc said have ended, and how

    def note_end(self, job: str, is_success: bool) -> None:
        """Take note that Orthanc says how a job ended: it may forget the job at once."""
        with self._lock:
            self._ended[job] = is_success
            while len(self._ended) > _MAX_ENDED:  # jobs of others
                del self._ended[next(iter(self._ended))]

    def begin(self, resources: Sequence[str], is_permissive: bool) -> str:
        """Have Orthanc send a series or instances; gives the job's id.

        Raises
        ------
        ServerError
            If it refuses.
        """
        answer = self._server.post(
            f"/modalities/{self._modality}/store",
            {
                "Resources": list(resources),
                "Synchronous": False,
                "Permissive": is_permissive,
                "Priority": _PRIORITY,
            },
        )
        return str(answer["ID"])

    def facts(self, job: str) -> Mapping[str, Any]:
        """What Orthanc says of a job; of one that it has forgotten, how it ended if it said so."""
        facts = self._server.find(f"/jobs/{job}") if job else None
        with self._lock:
            ended = self._ended.pop(job, None)
        if facts is not None:
            return dict(facts)
        return {} if ended is None else {"State": "Success" if ended else "Failure"}

    def ending(self, note: Note, facts: Mapping[str, Any]) -> Ending:
        """What came of the job of a note, which has ended or is not known any more.

        One that goes on after a refusal ends well whatever was refused, and Orthanc counts no
        failures of it: whether all has arrived is seen by a job that does not.
        """
        state = facts.get("State", "")
        if state == "Failure":
            return self._failure(note, facts)
        if state != "Success":
            return Ending(note, CarrierFault.VANISHED)
        if note.is_permissive:
            checking = replace(note, is_permissive=False, has_others=True)
            return Ending(checking, CarrierFault.PARTIAL, note.detail)
        return Ending(note)

    def _failure(self, note: Note, facts: Mapping[str, Any]) -> Ending:
        """A job ended at once with an instance: only a refusal of the instance lets others pass.

        Were the others sent after any failure, each of them would wait for a bridge that is down.
        """
        text = f"{facts.get('ErrorDescription', '')} {facts.get('ErrorDetails', '')}".strip()
        status = _STATUS.search(text)
        is_refusal = status is not None and not status[1].upper().startswith(_LATER)
        if is_refusal and note.has_others:
            rest = self._rest(note)
            return Ending(rest or note, CarrierFault.PARTIAL, text, is_final=rest is None)
        is_permissive = note.is_permissive or is_refusal
        return Ending(replace(note, is_permissive=is_permissive), CarrierFault.FAILED, text)

    def _rest(self, note: Note) -> Note | None:
        """By which note the others are sent once more; None if the bridge has them.

        A permissive job ends well also if the bridge was away for a part of it. The bridge keeps
        no count of some that it refused: what never changes is taken for all that it will have.
        """
        if note.is_forced or not self._announcer.can_ask:
            return None
        here_count = self._announcer.here_count(note.series) or 0
        if here_count >= note.instance_count:
            return None
        vain_count = 0 if here_count > note.here_count else note.vain_count + 1
        if vain_count >= _MAX_VAIN:
            return None
        here_count = max(here_count, note.here_count)
        rest = replace(note, is_permissive=True, has_others=False)
        return replace(rest, here_count=here_count, vain_count=vain_count)
