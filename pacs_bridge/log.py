"""The log: one JSON object a line, without patient data.

Fields that name a patient, study, series or instance are hashed with the key of the
installation, and so is every UID inside a text. Errors are logged by type and place, never by
their message: a library's message may quote the value that it choked on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pacs_bridge.clock import Clock, SystemClock
from pacs_bridge.identity_hash import IdentityHash

#: A value that a line can hold.
LogValue = str | int | float | bool | None
#: Fields whose value is an identifier.
HASHED_FIELDS = frozenset({"patient", "study", "series", "instance"})
_MAX_TEXT = 500
_STDERR = 2


class LogLevel(IntEnum):
    """How much a line matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Log(Protocol):
    """What a part of the service needs of the log."""

    def debug(self, event: str, **fields: LogValue) -> None:
        """Note what helps to find a fault."""
        ...

    def info(self, event: str, **fields: LogValue) -> None:
        """Note what happened."""
        ...

    def warning(self, event: str, **fields: LogValue) -> None:
        """Note what somebody should look at."""
        ...

    def error(self, event: str, **fields: LogValue) -> None:
        """Note what somebody must look at."""
        ...

    def fault(self, event: str, error: BaseException, **fields: LogValue) -> None:
        """Note an error that nobody expected: its type and place, not its message."""
        ...


class JsonLog:
    """Lines of JSON on a file descriptor; threads and processes may share it.

    Parameters
    ----------
    descriptor
        Each line is one ``write`` to it; a file is opened for appending.
    hide
        Hides identifiers.
    level
        Lines below it are left out.
    clock
        For the time of day.
    """

    def __init__(
        self,
        descriptor: int,
        hide: IdentityHash,
        level: LogLevel = LogLevel.INFO,
        clock: Clock | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._hide = hide
        self._level = level
        self._clock = clock or SystemClock()

    @classmethod
    def open(cls, file: Path | None, hide: IdentityHash, level: str = "info") -> JsonLog:
        """Log to ``file``, or to standard error without one."""
        if file is None:
            return cls(_STDERR, hide, LogLevel[level.upper()])
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        return cls(descriptor, hide, LogLevel[level.upper()])

    def debug(self, event: str, **fields: LogValue) -> None:
        """See ``Log.debug``."""
        self._write(LogLevel.DEBUG, event, fields)

    def info(self, event: str, **fields: LogValue) -> None:
        """See ``Log.info``."""
        self._write(LogLevel.INFO, event, fields)

    def warning(self, event: str, **fields: LogValue) -> None:
        """See ``Log.warning``."""
        self._write(LogLevel.WARNING, event, fields)

    def error(self, event: str, **fields: LogValue) -> None:
        """See ``Log.error``."""
        self._write(LogLevel.ERROR, event, fields)

    def fault(self, event: str, error: BaseException, **fields: LogValue) -> None:
        """See ``Log.fault``."""
        chain: list[str] = []
        cause: BaseException | None = error
        while cause is not None and len(chain) < 5:
            chain.append(f"{type(cause).__qualname__} at {_place(cause.__traceback__)}")
            cause = cause.__cause__ or cause.__context__
        self._write(LogLevel.ERROR, event, {**fields, "error": " from ".join(chain)})

    def catch_strays(self) -> None:
        """Send what would go to standard error by itself here: uncaught errors, warnings."""
        sys.excepthook = lambda _kind, error, _trace: self.fault("uncaught", error)

        def in_thread(args: threading.ExceptHookArgs) -> None:
            if args.exc_value is not None:
                thread = "" if args.thread is None else args.thread.name
                self.fault("uncaught", args.exc_value, thread=thread)

        threading.excepthook = in_thread
        warnings.showwarning = _warning_writer(self)

    def _write(self, level: LogLevel, event: str, fields: dict[str, LogValue]) -> None:
        if level < self._level:
            return
        line = {
            "time": self._clock.now().isoformat(timespec="milliseconds"),
            "level": level.name.lower(),
            "event": event,
            **{name: self._shown(name, value) for name, value in fields.items()},
        }
        text = json.dumps(line, ensure_ascii=True)  # no byte of a value can end the line
        try:
            os.write(self._descriptor, text.encode("ascii") + b"\n")
        except OSError:  # a full disk or a closed pipe must not stop the service
            return

    def _shown(self, name: str, value: LogValue) -> LogValue:
        if not isinstance(value, str):
            return value
        if name in HASHED_FIELDS:
            return self._hide.word(value)
        return self._hide.hide_uids(value[:_MAX_TEXT])


def _place(trace: TracebackType | None) -> str:
    """The innermost frames, as ``file:line``."""
    frames = traceback.extract_tb(trace)[-3:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


def _warning_writer(log: Log) -> Callable[..., None]:
    def show(_message: object, category: type, filename: str, lineno: int, *_rest: object) -> None:
        place = f"{Path(filename).name}:{lineno}"
        log.debug("library-warning", kind=category.__name__, place=place)

    return show
