"""Orthanc's own log of changes, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pacs_bridge.plugin.server import OrthancServer

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log."""

    number: int
    kind: str  #: as Orthanc names it
    resource: str  #: Orthanc's id

    @property
    def is_stable_series(self) -> bool:
        """Whether a series became stable."""
        return self.kind == "StableSeries"

    @property
    def is_new_instance(self) -> bool:
        """Whether an instance came."""
        return self.kind == "NewInstance"


@dataclass(frozen=True, slots=True)
class Changes:
    """Some lines that follow one another."""

    lines: tuple[Change, ...]
    last: int  #: up to which change these are all
    is_end: bool  #: whether no more are there yet


class ChangeLog:
    """The log; it is in Orthanc's database, and can be read from any line on.

    Parameters
    ----------
    server
        Orthanc.
    """

    def __init__(self, server: OrthancServer) -> None:
        self._server = server

    def last(self) -> int:
        """The number of the last line; raises ``ServerError`` if Orthanc does not say."""
        return int(self._server.get("/changes?last")["Last"])

    def after(self, since: int, until: int | None = None) -> Changes:
        """Some lines after one, and up to another; raises ``ServerError`` as ``last`` does."""
        answer = self._server.get(f"/changes?since={since}&limit={_BATCH}")
        lines = tuple(_change(one) for one in answer["Changes"])
        last = max(since, int(answer["Last"])) if lines else since
        is_end = bool(answer["Done"]) or last == since
        if until is not None:
            lines = tuple(one for one in lines if one.number <= until)
            is_end = is_end or last >= until
            last = max(since, min(last, until))
        return Changes(lines, last, is_end)

    def between(self, since: int, until: int) -> Iterator[Change]:
        """All lines after one, up to another; raises ``ServerError`` as ``last`` does."""
        is_end = since >= until
        while not is_end:
            changes = self.after(since, until)
            yield from changes.lines
            since, is_end = changes.last, changes.is_end


def _change(line: dict[str, Any]) -> Change:
    return Change(int(line["Seq"]), str(line["ChangeType"]), str(line["ID"]))
