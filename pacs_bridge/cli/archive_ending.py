"""How ``archive plan`` and ``archive run`` are told to end: by SIGTERM and ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacs_bridge.archive.work_process import Leaving

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def plan_check() -> Iterator[Callable[[], None]]:
    """A check that ends what calls it when this process was told to; told again, it ends at once.

    For the main thread. What it raises is ``PlanEndedError``.
    """
    from pacs_bridge.archive.planning import PlanEndedError

    told = threading.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def end(_number: int, _frame: object) -> None:
        told.set()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def check() -> None:
        if told.is_set():
            raise PlanEndedError

    for number in _SIGNALS:
        signal.signal(number, end)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_leaving() -> Leaving:
    """The first signal stops, the second one leaves; in the main thread."""
    from pacs_bridge.archive.work_process import Leaving

    leaving = Leaving(threading.Event(), threading.Event())

    def told(_number: int, _frame: object) -> None:
        if leaving.stop.is_set():
            leaving.leave.set()
        leaving.stop.set()

    for number in _SIGNALS:
        signal.signal(number, told)
    return leaving
