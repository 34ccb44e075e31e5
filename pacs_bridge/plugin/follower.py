"""Finds the series that became stable, by Orthanc's own log of changes.

The log is in Orthanc's database: what became stable while the plugin was down is read there at the
next start. It may be long: a step reads some of it, and what that has found can be sent before the
next. First comes what is new, then what had not been stable when Orthanc ended, last what was in
Orthanc before the plugin's first start.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from pacs_bridge.plugin.change_log import Change, ChangeLog
from pacs_bridge.plugin.notes import Found, NoteBook, Place, Stage
from pacs_bridge.plugin.server import OrthancServer, ServerError
from pacs_bridge.plugin.settings import Settings
from pacs_bridge.plugin.unsettled import UnsettledSearch

#: Orthanc looks for stable series every second; its log has a resolution of one.
_MARGIN_S = 30.0
_MODALITY = "CT"
#: When so many existing series wait to be sent, no more of them are read for now.
_MAX_EXISTING = 500
_MAX_READINGS = 200
_UNCLEAR_S = 10.0  #: until Orthanc is asked again for instances of which it could not speak


class Follower:
    """Reads the changes and notes what is to be sent.

    Parameters
    ----------
    server
        Orthanc.
    notes
        Where series are noted, and up to where the changes were read.
    settings
        Whether stable series are sent by themselves; how long it takes them to be stable.
    now_s, steady_s
        Time of day, and time that never steps.
    """

    def __init__(
        self,
        server: OrthancServer,
        notes: NoteBook,
        settings: Settings,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._log = ChangeLog(server)
        self._notes = notes
        self._settings = settings
        self._now_s = now_s
        self._steady_s = steady_s
        self._read: deque[tuple[float, int]] = deque()  # when which change was read
        self._search: UnsettledSearch | None = None
        self._search_again_s = float("-inf")

    def begin(self, start: int | None = None) -> None:
        """Go on where the plugin ended; at the first start, from there on.

        Parameters
        ----------
        start
            Where the log of changes ended when Orthanc started; None: it has started now.

        Raises
        ------
        ServerError
            If Orthanc does not answer.
        OSError
            If it cannot be noted.
        """
        last = self._log.last()
        start = last if start is None else min(start, last)
        place = self._notes.place
        if place is not None and place.position > start:
            self._server.warning("another database than before: its series are taken from now on")
        if place is None or place.position > start:
            is_first = place is None and not self._notes.damage
            self._notes.tidy()
            self._notes.begin_at(start, start if is_first and self._settings.existing_series else 0)
            return
        self._look_for_what_was_damaged(place)
        self._search = UnsettledSearch(self._server, place.floor, last)

    def follow(self) -> bool:
        """Read some changes, and note what they tell; whether there is more to read at once.

        Raises as ``begin`` does.
        """
        place = self._place()
        changes = self._log.after(place.position)
        self._read.append((self._steady_s(), changes.last))
        stable = self._wanted(changes.lines)
        now = replace(place, position=changes.last, floor=self._floor(place))
        if now != place:
            self._notes.advance(now, stable, self._now_s())
        return not changes.is_end or self._search_on() or self._read_existing()

    def _place(self) -> Place:
        return self._notes.place or Place(0, 0)

    def _look_for_what_was_damaged(self, place: Place) -> None:
        """Note again what damaged lines may have noted, unless a later line speaks of it."""
        doubt = self._notes.doubt
        if doubt is None:
            return
        before = doubt.before
        for found, since, until in (
            (Found.STABLE, before.position, place.position),
            (Found.EXISTING, before.existing, place.existing),
        ):
            lines = self._log.between(since, until)
            wanted = [one for one in self._wanted(lines) if one not in doubt.mentioned]
            if wanted:
                self._notes.advance(place, wanted, self._now_s(), found)
        self._notes.tidy()

    def _search_on(self) -> bool:
        """Look for some more of what was unsettled; whether that goes on at once."""
        search = self._search
        if search is None or self._steady_s() < self._search_again_s:
            return False
        has_got_on = search.step()
        if not has_got_on:
            self._search_again_s = self._steady_s() + _UNCLEAR_S
        if search.has_read_all or not has_got_on:  # what is clear waits for nothing that is not
            self._note_found(search)
        return has_got_on and self._search is not None

    def _note_found(self, search: UnsettledSearch) -> None:
        place = self._place()
        wanted = [series for series in search.found() if self._may_be_wanted(series)]
        if wanted:
            self._server.info(f"{len(wanted)} series had not been stable when Orthanc ended")
        # What lies before it is in the log or noted now: the next start looks behind it.
        now = replace(place, floor=max(place.floor, search.floor_when_noted))
        if wanted or now != place or search.is_over:
            self._notes.advance(now, wanted, self._now_s(), Found.UNSETTLED)
            self._notes.tidy()  # what was unsettled is in no change behind this place
        search.forget_found()
        if search.is_over:
            self._search = None

    def _read_existing(self) -> bool:
        """Read some of what was there before the first start; whether there is more at once."""
        place = self._place()
        if not self._settings.existing_series or place.existing >= place.existing_end:
            return False
        if self._existing_count() >= _MAX_EXISTING:
            return False
        changes = self._log.after(place.existing, place.existing_end)
        read = place.existing_end if changes.is_end else changes.last
        wanted = [one for one in self._wanted(changes.lines) if self._notes.get(one) is None]
        self._notes.advance(replace(place, existing=read), wanted, self._now_s(), Found.EXISTING)
        return read < place.existing_end

    def _existing_count(self) -> int:
        waiting = (one for one in self._notes.all() if one.stage is Stage.WAITING)
        return sum(one.found is Found.EXISTING for one in waiting)

    def _floor(self, place: Place) -> int:
        """The last change that was read so long ago that its series has been stable since."""
        old_s = self._steady_s() - self._settings.stable_age_s - _MARGIN_S
        floor = place.floor
        while self._read and self._read[0][0] < old_s:
            floor = max(floor, self._read.popleft()[1])
        while len(self._read) > _MAX_READINGS:  # merge what was read at nearly the same time
            del self._read[-2]
        if self._search is None:
            return floor
        # What the search has found so far is not noted yet.
        return max(place.floor, min(place.position, self._search.floor))

    def _wanted(self, lines: Iterable[Change]) -> list[str]:
        stable = dict.fromkeys(one.resource for one in lines if one.is_stable_series)
        return [series for series in stable if self._may_be_wanted(series)]

    def _may_be_wanted(self, series: str) -> bool:
        """Whether it is wanted; one of which Orthanc cannot speak is asked for when it is sent."""
        try:
            return self._is_wanted(series)
        except (ServerError, LookupError, TypeError):
            self._server.warning(f"series {series}: Orthanc does not say what it is")
            return True

    def _is_wanted(self, series: str) -> bool:
        """Whether a series is sent by itself: CT, so that no result of ours comes back."""
        if not self._settings.automatic:
            return False
        facts = self._server.find(f"/series/{series}")
        return facts is not None and facts["MainDicomTags"].get("Modality") == _MODALITY
