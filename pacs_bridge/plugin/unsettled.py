"""Series that had not been stable when Orthanc ended: nothing says so, they are searched for.

Orthanc forgets at its end which series were unstable, and never reports them. They have instances
in the log of changes after which they did not become stable.
"""

from __future__ import annotations

from collections.abc import Iterable

from pacs_bridge.plugin.change_log import Change, ChangeLog
from pacs_bridge.plugin.server import OrthancServer, ServerError

#: Instances of which Orthanc cannot speak now and that are asked for once more.
_MAX_UNCLEAR = 10_000


class UnsettledSearch:
    """Reads a part of the log, some of it at each step; keeps only what may be unsettled.

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
        self._since = since
        self.until = until
        self._touched: dict[str, int] = {}  # series, and the first change since it was stable
        self._unclear: dict[str, int] = {}  # instances
        self.is_over = since >= until

    @property
    def floor(self) -> int:
        """The last change at which every series before it has become stable since."""
        numbers = (*self._touched.values(), *self._unclear.values())
        return min([self._since, *(number - 1 for number in numbers)])

    def step(self) -> None:
        """Look at some more; raises ``ServerError`` if Orthanc does not answer."""
        changes = self._log.after(self._since, self.until)
        self._look_at(changes.lines)
        self._since, self.is_over = changes.last, changes.is_end
        if self.is_over:
            unclear, self._unclear = self._unclear, {}
            for instance, number in unclear.items():
                self._touch(instance, number)
            if self._unclear:
                count = len(self._unclear)
                self._server.warning(f"of {count} instances Orthanc does not say which series")

    def found(self) -> tuple[str, ...]:
        """The series that have not become stable."""
        return tuple(self._touched)

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
            if len(self._unclear) < _MAX_UNCLEAR:
                self._unclear[instance] = number
            return
        if parent is not None:
            self._touched.setdefault(parent["ID"], number)
