"""Series that had not been stable when Orthanc ended: nothing says so, they are searched for.

Orthanc forgets at its end which series were unstable, and never reports them. They have instances
in the log of changes after which they did not become stable.
"""

from __future__ import annotations

from collections.abc import Iterable

from pacs_bridge.plugin.change_log import Change, ChangeLog
from pacs_bridge.plugin.server import OrthancServer, ServerError

#: When Orthanc cannot speak of so many instances, the log is not read on before it can.
_MAX_UNCLEAR = 10_000
_ASKED_AT_ONCE = 200  #: of those


class UnsettledSearch:
    """Reads a part of the log, some of it at each step; keeps only what may be unsettled.

    An instance of which Orthanc cannot speak now is asked for again, also when all is read: until
    then nothing behind it counts as settled.

    Parameters
    ----------
    server
        Orthanc.
    since, until
        The change before the first, and the last, that are looked at.
    """

    def __init__(self, server: OrthancServer, since: int, until: int) -> None:
        self._server = server
        self._log = ChangeLog(server)
        self._until = until
        self._since = since
        self._touched: dict[str, int] = {}  # series, and the first change since it was stable
        self._unclear: dict[str, int] = {}  # instances; what was not asked for lately goes first
        self._is_said = False
        self.has_read_all = since >= until

    @property
    def is_over(self) -> bool:
        """Whether all is read, and all of it is clear."""
        return self.has_read_all and not self._unclear

    @property
    def floor(self) -> int:
        """The last change at which every series before it has become stable since."""
        return min([self.floor_when_noted, *(number - 1 for number in self._touched.values())])

    @property
    def floor_when_noted(self) -> int:
        """The same, once what was found so far is noted."""
        return min([self._since, *(number - 1 for number in self._unclear.values())])

    def step(self) -> bool:
        """Look at some more; False if Orthanc can say nothing more for now.

        Raises
        ------
        ServerError
            If it does not answer.
        """
        if self.has_read_all or len(self._unclear) >= _MAX_UNCLEAR:
            return self._ask_again()
        changes = self._log.after(self._since, self._until)
        self._look_at(changes.lines)
        self.has_read_all = changes.is_end
        self._since = self._until if changes.is_end else changes.last
        return True

    def found(self) -> tuple[str, ...]:
        """The series that have not become stable, and were not noted."""
        return tuple(self._touched)

    def forget_found(self) -> None:
        """What was found is noted."""
        self._touched.clear()

    def _ask_again(self) -> bool:
        """Ask for some of what is unclear; whether any of it is clear now."""
        before = len(self._unclear)
        for instance in list(self._unclear)[:_ASKED_AT_ONCE]:
            self._touch(instance, self._unclear[instance])
        after = len(self._unclear)
        if after == before and after and not self._is_said:
            self._is_said = True
            self._server.warning(
                f"of {after} instances Orthanc does not say which series; they are asked for again"
            )
        return after < before

    def _look_at(self, lines: Iterable[Change]) -> None:
        for change in lines:
            if change.is_stable_series:
                self._touched.pop(change.resource, None)
            elif change.is_new_instance:
                self._touch(change.resource, change.number)

    def _touch(self, instance: str, number: int) -> None:
        try:
            parent = self._server.find(f"/instances/{instance}/series")
        except ServerError:  # one of them keeps no other waiting
            self._unclear.pop(instance, None)
            self._unclear[instance] = number
            return
        self._unclear.pop(instance, None)
        if parent is not None:
            series = parent["ID"]
            self._touched[series] = min(number, self._touched.get(series, number))
