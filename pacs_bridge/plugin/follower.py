"""Finds the series that became stable, by Orthanc's own log of changes.

The log is in Orthanc's database: what became stable while the plugin was down is read there at the
next start. What had not been stable for long enough when Orthanc was ended is in no such line, and
never will be: Orthanc forgets which series were unstable. Those are found by their instances.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pacs_bridge.plugin.notes import Found, NoteBook
from pacs_bridge.plugin.server import OrthancServer, ServerError
from pacs_bridge.plugin.settings import Settings

_BATCH = 200
#: Orthanc looks for stable series every second; its log has a resolution of one.
_MARGIN_S = 30.0
_MODALITY = "CT"


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
        self._notes = notes
        self._settings = settings
        self._now_s = now_s
        self._steady_s = steady_s
        self._read: deque[tuple[float, int]] = deque()  # when which change was read

    def begin(self) -> None:
        """Go on where the plugin ended; at the first start, from now on.

        Raises
        ------
        ServerError
            If Orthanc does not answer.
        OSError
            If it cannot be noted.
        """
        last = int(self._server.get("/changes?last")["Last"])
        position = self._notes.position
        if position is not None and position > last:
            self._server.warning("another database than before: its series are taken from now on")
        if position is None or position > last:
            if self._settings.existing_series and position is None:
                self._notes.begin_at(0, existing_end=last)
            else:
                self._notes.begin_at(last)
            return
        unsettled, end = self._unsettled(self._notes.floor)
        if unsettled:
            self._server.info(f"{len(unsettled)} series had not been stable when Orthanc ended")
        # What lies before the end is in the log or noted now: the next start looks behind it.
        self._notes.advance(position, end, unsettled, self._now_s(), Found.UNSETTLED)

    def follow(self) -> None:
        """Read what is new, and note it. Raises as ``begin`` does."""
        done = False
        while not done:
            position = self._notes.position or 0
            answer = self._changes(position)
            done = bool(answer["Done"]) or not answer["Changes"]
            last = max(position, int(answer["Last"])) if answer["Changes"] else position
            self._read.append((self._steady_s(), last))
            floor = self._settled_floor()
            stable = {
                change["ID"]: change["Seq"]
                for change in answer["Changes"]
                if change["ChangeType"] == _STABLE
            }
            wanted = {one: seq for one, seq in stable.items() if self._may_be_wanted(one)}
            if last != position or floor != self._notes.floor:
                self._advance(last, floor, wanted)

    def _advance(self, last: int, floor: int, wanted: Mapping[str, int]) -> None:
        """Note series, with the change at which each was stable; existing ones as such."""
        now_s, end = self._now_s(), self._notes.existing_end
        existing = [one for one, seq in wanted.items() if seq <= end]
        if existing:
            self._notes.advance(min(last, end), floor, existing, now_s, Found.EXISTING)
        new = [one for one, seq in wanted.items() if seq > end]
        if last > end or not existing:
            self._notes.advance(last, floor, new, now_s)

    def _changes(self, since: int) -> Any:
        return self._server.get(f"/changes?since={since}&limit={_BATCH}")

    def _settled_floor(self) -> int:
        """The last change that was read so long ago that its series has been stable since."""
        old_s = self._steady_s() - self._settings.stable_age_s - _MARGIN_S
        floor = self._notes.floor
        while self._read and self._read[0][0] < old_s:
            floor = max(floor, self._read.popleft()[1])
        while len(self._read) > _BATCH:  # merge what was read at nearly the same time
            del self._read[-2]
        return floor

    def _unsettled(self, since: int) -> tuple[list[str], int]:
        """Series with instances that no line says to have become stable; the last line seen."""
        end = since
        touched: dict[str, int] = {}
        stable: dict[str, int] = {}
        for change in self._walk(since):
            end = change["Seq"]
            if change["ChangeType"] == _STABLE:
                stable[change["ID"]] = change["Seq"]
            elif change["ChangeType"] == "NewInstance":
                parent = self._server.find(f"/instances/{change['ID']}/series")
                if parent is not None:
                    touched[parent["ID"]] = change["Seq"]
        # What became stable after the position is noted when the log is followed from there.
        unsettled = [
            series
            for series, last in touched.items()
            if stable.get(series, 0) < last and self._may_be_wanted(series)
        ]
        return unsettled, end

    def _walk(self, since: int) -> Iterator[Any]:
        done = False
        while not done:
            answer = self._changes(since)
            yield from answer["Changes"]
            done = bool(answer["Done"]) or not answer["Changes"]
            since = int(answer["Last"])

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


_STABLE = "StableSeries"
