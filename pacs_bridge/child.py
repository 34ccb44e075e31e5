"""What every process of the service does at its beginning and its end."""

from __future__ import annotations

import os
import signal
import socket
import threading

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import PermanentError, disk_reason
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.log import JsonLog


def leave_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; to be called in the main thread."""
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: leave.set())
    return leave


def leave_on_closed_stdin(leave: threading.Event) -> None:
    """Set ``leave`` when nobody holds the other end of standard input any more."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        leave.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def open_log(config: BridgeConfig, makes_key: bool = True) -> JsonLog:
    """The log of this process, and libraries that keep to it.

    Parameters
    ----------
    config
        The whole configuration.
    makes_key
        Whether the data folder is this machine's: the key that hides identifiers is made in it.

    Raises
    ------
    BridgeError
        If key or log cannot be used.
    """
    apply_library_settings()
    of_folder = IdentityHash.load if makes_key else IdentityHash.known
    hide = of_folder(config.data_folder)
    try:
        log = JsonLog.open(config.log.file, hide, config.log.level)
    except OSError as error:
        detail = f"log.file: {config.log.file}: {error.strerror}"
        raise PermanentError(disk_reason(error), detail) from error
    log.catch_strays()
    return log


def process_name(pid: int | None = None) -> str:
    """What this process, or another one of this machine, calls itself in leases."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"
