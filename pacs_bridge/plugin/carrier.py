"""Has Orthanc send what was noted, by jobs of its own, until it has arrived."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pacs_bridge.plugin.announcer import Announced, Announcer
from pacs_bridge.plugin.notes import Found, Note, NoteBook, Stage
from pacs_bridge.plugin.server import OrthancServer, ServerError
from pacs_bridge.plugin.settings import Settings
from pacs_bridge.plugin.store_jobs import CarrierFault, Ending, StoreJobs

#: CT, Enhanced CT, Legacy Converted Enhanced CT Image Storage (PS3.6 table A-1): what the
#: bridge takes. A Segmentation is none of them, whatever its series says of itself.
CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
    }
)
_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class _Wait:
    """Until when a note waits; one that was noted anew since has another time of day."""

    noted_s: float  #: the note's
    due_s: float  #: the note's
    until_s: float  #: steady


class Carrier:
    """Sends series, some at a time.

    Parameters
    ----------
    server
        Orthanc.
    notes
        What is to be sent.
    settings
        Where to, how many at once, and how long to wait after a failure.
    announcer
        Tells the bridge how many instances a series has, and asks how many it has.
    now_s, steady_s
        Time of day, for who asks, and time that never steps, for every wait.
    """

    def __init__(
        self,
        server: OrthancServer,
        notes: NoteBook,
        settings: Settings,
        announcer: Announcer,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._notes = notes
        self._settings = settings
        self._announcer = announcer
        self._now_s = now_s
        self._steady_s = steady_s
        self.deleted_count = 0  #: series that were deleted before they were sent, since the start
        self._due_s: dict[str, _Wait] = {}  # of what waits
        self._counted_s: dict[str, float] = {}  # up to when a series' waiting is counted; steady
        self._jobs = StoreJobs(server, announcer, settings.modality)

    def job_ended(self, job: str, is_success: bool) -> None:
        """Take note that Orthanc says how a job ended; any thread may."""
        self._jobs.note_end(job, is_success)

    def look(self) -> None:
        """Look after what is being sent, and send what is due.

        Raises
        ------
        LeavingError
            If Orthanc ends.
        OSError
            If it cannot be noted.
        """
        notes, now_s = self._notes.all(), self._steady_s()
        self._counted_s = {one.series: self._counted_s.get(one.series, now_s) for one in notes}
        self._due_s = {one: due for one, due in self._due_s.items() if one in self._counted_s}
        for note in notes:
            if note.is_forced:
                self._announcer.transfer_ended(note.series, is_partial=False)
        self._announcer.insist()
        sending = [note for note in notes if note.stage is Stage.SENDING]
        free = self._settings.stores_at_once - len(sending)
        for note in sending:
            free += self._guarded(note, self._look_after, True)
        if free <= 0:
            return
        due = [note for note in notes if self._is_wanted(note) and self._due(note) <= now_s]
        for note in sorted(due, key=lambda one: one.found is Found.EXISTING):
            if free > 0 and (note.is_forced or not self._announcer.holds(note.series)):
                free -= self._guarded(note, self._send, False)

    def next_due_s(self) -> float | None:
        """When to look again, steady time; None if nothing is to be sent or told."""
        notes = self._notes.all()
        if self._announcer.is_insisting or any(one.stage is Stage.SENDING for one in notes):
            return self._steady_s()
        return min((self._due(note) for note in notes if self._is_wanted(note)), default=None)

    def forget_gone(self) -> None:
        """Forget what was given up and has been deleted since; raises as ``look`` does."""
        for note in self._notes.all():
            if note.stage is Stage.FAILED and self._is_gone(note):
                self._settle(note)

    def _is_gone(self, note: Note) -> bool:
        try:
            return self._server.find(f"/series/{note.series}") is None
        except ServerError:
            return False

    def _is_wanted(self, note: Note) -> bool:
        """Whether a note waits to be sent; what was there before also has to be wanted still.

        Of one of those that was tried a part may be here: it is sent all the same.
        """
        if note.stage is not Stage.WAITING:
            return False
        return (
            note.found is not Found.EXISTING
            or self._settings.existing_series
            or note.attempts > 0
            or note.is_forced
        )

    def _due(self, note: Note) -> float:
        """When to send a note; at once if it was never tried since the start, or noted anew.

        Of one that had not been stable when Orthanc ended more may come: Orthanc itself takes it
        for stable, and would only tell that it is not when more has come.
        """
        wait = self._due_s.get(note.series)
        if wait is not None and (wait.noted_s, wait.due_s) == (note.noted_s, note.due_s):
            return wait.until_s
        if note.found is not Found.UNSETTLED:
            return -math.inf
        start_s = self._counted_s.get(note.series, self._steady_s())
        return start_s + self._settings.stable_age_s

    def _guarded(self, note: Note, step: Callable[[Note], bool], otherwise: bool) -> bool:
        """Do a step; a series of which Orthanc cannot speak keeps no other waiting."""
        try:
            return step(note)
        except (ServerError, LookupError, TypeError, ValueError) as error:
            self._again(note, CarrierFault.ORTHANC, f"{type(error).__name__}: {error}")
            return otherwise

    def _look_after(self, note: Note) -> bool:
        """Whether a note takes no place any more: its job has ended, or somebody pauses it."""
        facts = self._jobs.facts(note.job)
        state = str(facts.get("State", ""))
        has_part = state != "Success" or note.is_permissive
        if has_part and note.instance_count and not note.is_forced:
            self._announcer.ensure(note)
        if state in ("", "Success", "Failure"):
            self._conclude(note, self._jobs.ending(note, facts))
        return state in ("", "Success", "Failure", "Paused")

    def _conclude(self, note: Note, ending: Ending) -> None:
        if ending.fault is None:
            self._server.info(f"series {note.series} is with the bridge")
            self._settle(note)
        elif ending.is_final:
            self._give_up(note, ending.fault, ending.detail)
        else:
            self._again(ending.note, ending.fault, ending.detail)

    def _send(self, note: Note) -> bool:
        """Whether a series is being sent now."""
        series = self._server.find(f"/series/{note.series}")
        if series is None:
            self._server.warning(f"series {note.series} was deleted before it was sent")
            self.deleted_count += 1
            self._settle(note)
            return False
        if not series["IsStable"]:  # it will be noted again when it is
            self._wait(note, self._settings.stable_age_s)
            return False
        wanted = [one for one in series["Instances"] if self._is_ct(one)]
        if not wanted:
            self._server.info(f"series {note.series} is not sent: no instance is a CT image")
            self._settle(note)
            return False
        announced = self._announced(replace(note, instance_count=len(wanted)))
        if announced is Announced.OTHER_PATIENT:
            detail = "its UIDs are those of a series of another patient or study"
            self._give_up(note, CarrierFault.OTHER_PATIENT, detail)
            return False
        is_unheard = announced in (Announced.UNHEARD, Announced.FAULT)
        if is_unheard and self._announcer.holds(note.series):
            self._notes.put(replace(note, reason=CarrierFault.UNTOLD, detail=""))
            return False
        is_whole = len(wanted) == len(series["Instances"])
        # Noted first: what becomes stable from now on is sent once more.
        sending = replace(note, stage=Stage.SENDING, job="", reason="", instance_count=len(wanted))
        if sending.found is Found.UNSETTLED:  # it has had its time
            sending = replace(sending, found=Found.STABLE)
        self._notes.put(sending)
        try:
            job = self._jobs.begin([note.series] if is_whole else wanted, note.is_permissive)
        except ServerError as error:
            self._again(sending, CarrierFault.REFUSED, str(error))
            return False
        self._notes.put(replace(sending, job=job))
        return True

    def _announced(self, note: Note) -> Announced:
        """What the bridge makes of how much will come."""
        if note.is_forced:  # to expect more now would take back what the operator said
            return Announced.HEARD
        return self._announcer.announce(note)

    def _is_ct(self, instance: str) -> bool:
        sop_class = self._server.text(f"/instances/{instance}/metadata/SopClassUid")
        return sop_class.strip() in CT_CLASSES

    def _again(self, note: Note, reason: CarrierFault, detail: str) -> None:
        """Wait, each time for longer, and give up when its time is over."""
        now_s = self._steady_s()
        waited_s = note.waited_s + now_s - self._counted_s.get(note.series, now_s)
        self._counted_s[note.series] = now_s
        if waited_s > self._settings.give_up_after_h * _S_PER_H:
            self._give_up(note, reason, detail)
            return
        self._announcer.transfer_ended(note.series, is_partial=True)
        attempts = note.attempts + 1
        longest = self._settings.max_wait_s
        wait_s = min(longest, self._settings.first_wait_s * 2.0 ** min(attempts - 1, 30))
        if note.found is Found.UNSETTLED:
            wait_s = max(wait_s, self._settings.stable_age_s)
        self._server.warning(f"series {note.series}: {reason}, again in {wait_s:.0f} s. {detail}")
        waiting = replace(
            note,
            stage=Stage.WAITING,
            attempts=attempts,
            waited_s=waited_s,
            job="",
            is_changed=False,
            reason=reason,
            detail=detail,
        )
        self._wait(waiting, wait_s)

    def _wait(self, note: Note, wait_s: float) -> None:
        waiting = replace(note, due_s=self._now_s() + wait_s)
        self._notes.put(waiting)
        until_s = self._steady_s() + wait_s
        self._due_s[note.series] = _Wait(waiting.noted_s, waiting.due_s, until_s)

    def _settle(self, note: Note) -> None:
        self._announcer.transfer_ended(note.series, is_partial=False)
        self._notes.settle(note.series, self._now_s())

    def _give_up(self, note: Note, reason: CarrierFault, detail: str) -> None:
        self._server.error(f"series {note.series} is given up: {reason}. {detail}")
        self._announcer.transfer_ended(note.series, is_partial=True)
        failed = replace(note, stage=Stage.FAILED, job="", reason=reason, detail=detail, due_s=0.0)
        self._notes.give_up(failed, self._now_s())
