"""The listener as a process of its own. Nothing here imports what computes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.log import JsonLog
from pacs_bridge.receive.listener import Listener


def run_listener(config: BridgeConfig, announce: Callable[[int], None] | None = None) -> None:
    """Listen until SIGTERM or SIGINT, then drain and return. To be called in the main thread.

    Parameters
    ----------
    config
        The whole configuration.
    announce
        Told the port once associations are accepted.

    Raises
    ------
    PermanentError
        ``cannot-listen``.
    """
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: leave.set())
    apply_library_settings()
    log = JsonLog.open(config.log.file, IdentityHash.load(config.data_folder), config.log.level)
    log.catch_strays()
    listener = Listener(config, log)
    listener.start()
    try:
        if announce is not None:
            announce(listener.port)
        while not leave.wait(1.0):  # a wait without end would keep signals from the handler
            pass
    finally:
        listener.stop()
