"""When a job may do what: a worker may have several on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pacs_bridge.stopwatch import Stage


class Turn(Protocol):
    """The turn of one job among those of its worker."""

    @property
    def gives_way(self) -> bool:
        """Whether the job is to be given back, for a more urgent one."""
        ...

    def enter(self, stage: Stage, check: Callable[[], None]) -> None:
        """Wait until it may begin a stage; ``check`` may raise to end the wait."""
        ...


class OwnTurn:
    """The turn of a job that nobody works beside."""

    gives_way = False

    def enter(self, stage: Stage, check: Callable[[], None]) -> None:
        """See ``Turn.enter``: at once."""
