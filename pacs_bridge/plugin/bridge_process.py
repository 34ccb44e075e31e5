"""The bridge as a process that Orthanc starts, keeps running and ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from enum import StrEnum

from pacs_bridge.plugin.bridge_client import BridgeClient
from pacs_bridge.plugin.server import OrthancServer
from pacs_bridge.plugin.settings import Settings

_FIRST_WAIT_S = 1.0
_MAX_WAIT_S = 60.0
_HEALTHY_AFTER_S = 60.0
#: Variables that would lead another interpreter to this one's library.
_OURS_ALONE = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV")


class ProcessState(StrEnum):
    """What is known of the bridge's process."""

    UNMANAGED = "unmanaged"  #: somebody else starts it
    ADOPTED = "adopted"  #: one was there already
    RUNNING = "running"  #: started here
    DOWN = "down"  #: started again at its time


class BridgeProcess:
    """Looks after the process; one thread may look.

    It is started by its own program, never by this interpreter, and is given the end of a pipe as
    its standard input: with ``--until-stdin-closes`` it ends when Orthanc is gone, however it went.

    Parameters
    ----------
    settings
        The command, and how long it may take to end.
    client
        Tells whether a bridge is there already; None if that cannot be asked.
    server
        For the log.
    steady_s
        Time that never steps.
    """

    def __init__(
        self,
        settings: Settings,
        client: BridgeClient | None,
        server: OrthancServer,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client = client
        self._server = server
        self._steady_s = steady_s
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._deaths = 0
        self._due_s = 0.0
        self.state = ProcessState.DOWN if settings.command else ProcessState.UNMANAGED

    def look(self) -> None:
        """Start the process if there is none, and again when it has died."""
        if not self._settings.command:
            return
        if self._process is not None:
            self._look_after(self._process)
        elif self._client is not None and self._client.is_alive():
            if self.state is not ProcessState.ADOPTED:
                self._server.info("a bridge runs already: it is left alone")
            self.state = ProcessState.ADOPTED
        else:
            if self.state is ProcessState.ADOPTED:
                self._server.warning("the bridge that ran already is gone")
            self.state = ProcessState.DOWN
            if self._steady_s() >= self._due_s:
                self._start()

    def stop(self) -> None:
        """Ask the process to end, wait, and end it if it does not; one that was adopted stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._settings.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._server.warning("the bridge did not end in its time: it is killed")
            self._process.kill()
            self._process.wait()
        self._close(self._process)
        self.state = ProcessState.DOWN

    def _start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in _OURS_ALONE}
        try:
            self._process = subprocess.Popen(
                self._settings.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # what is meant for Orthanc's terminal is not for it
            )
        except OSError as error:
            self._wait(f"the bridge cannot be started: {error.strerror}")
            return
        self._started_s = self._steady_s()
        self.state = ProcessState.RUNNING
        self._server.info(f"the bridge is started, process {self._process.pid}")

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is None:
            if self._steady_s() - self._started_s > _HEALTHY_AFTER_S:
                self._deaths = 0
            return
        self._close(process)
        self.state = ProcessState.DOWN
        self._wait(f"the bridge ended with status {status}; it has told why")

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
        self._process = None

    def _wait(self, what: str) -> None:
        self._deaths += 1
        wait_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._deaths - 1, 30))
        self._due_s = self._steady_s() + wait_s
        self._server.error(f"{what}; started again in {wait_s:.0f} s")
