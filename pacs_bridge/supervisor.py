"""Starts the processes of one machine and keeps them running.

The listener, one worker a device and the sender are processes of their own: a crash in a codec
or on a GPU drops no association. A child that dies is started again, with growing waits; a
child that says at its start that the configuration is wrong ends the service.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pacs_bridge.child import process_name
from pacs_bridge.errors import TransientError
from pacs_bridge.log import Log
from pacs_bridge.retry_policy import RetryPolicy

#: Exit status of a child whose configuration or device is wrong: no restart will help.
WRONG_CONFIGURATION = 2
_RESTARTS = RetryPolicy(first_wait_s=1.0, max_wait_s=60.0, give_up_after_s=float("inf"))
_HEALTHY_AFTER_S = 60.0
#: Far more than loading weights from a slow share takes; what hangs on a device hangs for ever.
_READY_WITHIN_S = 900.0
_LOOK_INTERVAL_S = 0.2
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process of the service."""

    name: str
    command: tuple[str, ...]  #: is given ``--ready-fd N``: where to write a line when ready


@dataclass(slots=True)
class _Child:
    """One process of the service, or the wait for its next start."""

    spec: ChildSpec
    running: _Running | None = None
    ready: str = ""  #: what it said when it was ready
    deaths: int = 0
    next_start_s: float = 0.0


@dataclass(slots=True)
class _Running:
    """A child that was started and not yet buried."""

    process: subprocess.Popen[bytes]
    started_s: float
    ready_fd: int | None  #: read end of the pipe that it says ready on
    is_given_up: bool = False  #: killed, as it did not become ready

    def read_ready(self) -> str:
        """What the child said since the last call; empty if nothing."""
        if self.ready_fd is None or not select.select([self.ready_fd], [], [], 0)[0]:
            return ""
        word = os.read(self.ready_fd, 4096).decode().strip()
        self.close()
        return word

    def close(self) -> None:
        """Give the pipe back."""
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None


class WrongConfigurationError(Exception):
    """A child said at its start that it cannot run as configured; it has told why."""


class Supervisor:
    """Runs children until told to leave.

    Parameters
    ----------
    specs
        The children, in the order in which they start and stop.
    log
        Told every start and death.
    drain_s
        How long a child may take to finish what it has in hand.
    on_death
        Told the lease name of a child that died.
    on_kill
        Told the lease name of a child that was killed because it did not leave in time.
    ready_within_s
        A child that has not said that it is ready by then hangs: it is killed and started again.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        log: Log,
        drain_s: float,
        on_death: Callable[[str], object] = lambda _name: None,
        on_kill: Callable[[str], object] = lambda _name: None,
        ready_within_s: float = _READY_WITHIN_S,
    ) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._log = log
        self._drain_s = drain_s
        self._on_death = on_death
        self._on_kill = on_kill
        self._ready_within_s = ready_within_s

    def run(self, leave: threading.Event, announce: Callable[[dict[str, str]], None]) -> None:
        """Start all children, keep them running, and drain them once ``leave`` is set.

        Parameters
        ----------
        leave
            Set to end.
        announce
            Told, once, what each child said when it was ready.

        Raises
        ------
        WrongConfigurationError
            If a child cannot run as configured; the others are ended first.
        """
        announced = False
        try:
            while not leave.is_set():
                for child in self._children:
                    self._look_after(child)
                if not announced and all(child.ready for child in self._children):
                    announced = True
                    announce({child.spec.name: child.ready for child in self._children})
                leave.wait(_LOOK_INTERVAL_S)
        finally:
            self._drain()

    def _look_after(self, child: _Child) -> None:
        now_s = time.monotonic()
        if child.running is None:
            if now_s >= child.next_start_s:
                self._try_start(child, now_s)
            return
        if word := child.running.read_ready():
            child.ready = word
            self._log.info("process-ready", name=child.spec.name)
        status = child.running.process.poll()
        if status is None:
            self._judge_living(child, child.running, now_s)
            return
        self._bury(child, child.running, self._on_death)
        # Once it has run, the configuration was right: a device or disk went away since.
        if status == WRONG_CONFIGURATION and not child.ready:
            raise WrongConfigurationError(child.spec.name)
        wait_s = self._count_death(child, now_s)
        self._log.error("process-died", name=child.spec.name, status=status, restart_in_s=wait_s)

    def _judge_living(self, child: _Child, running: _Running, now_s: float) -> None:
        """Forget the deaths of who lives well; kill who hangs before it was ready."""
        lived_s = now_s - running.started_s
        if running.ready_fd is None:
            if lived_s > _HEALTHY_AFTER_S:
                child.deaths = 0
        elif lived_s > self._ready_within_s and not running.is_given_up:
            running.is_given_up = True
            self._log.error("process-not-ready", name=child.spec.name, seconds=lived_s)
            running.process.kill()

    def _count_death(self, child: _Child, now_s: float) -> float:
        """Put the next start off; gives by how long."""
        child.deaths += 1
        wait_s = _RESTARTS.wait_s(child.deaths)
        child.next_start_s = now_s + wait_s
        return wait_s

    def _try_start(self, child: _Child, now_s: float) -> None:
        try:
            child.running = self._start(child.spec)
        except OSError as error:  # no memory, process or file for one more: the others go on
            wait_s = self._count_death(child, now_s)
            self._log.error(
                "process-not-started", name=child.spec.name, detail=str(error), restart_in_s=wait_s
            )

    def _start(self, spec: ChildSpec) -> _Running:
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [*spec.command, "--ready-fd", str(write_end)],
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._log.info("process-started", name=spec.name, pid=process.pid)
        return _Running(process, time.monotonic(), read_end)

    def _bury(self, child: _Child, dead: _Running, tell: Callable[[str], object]) -> None:
        dead.close()
        child.running = None
        try:
            tell(process_name(dead.process.pid))
        except TransientError as error:  # its lease runs out all the same
            self._log.error("death-not-noted", name=child.spec.name, reason=error.reason)

    def _drain(self) -> None:
        """Ask all to finish, wait, and end those that do not."""
        alive = [(child, child.running) for child in self._children if child.running is not None]
        for _, running in alive:
            running.process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + self._drain_s
        for child, running in alive:
            tell = self._on_death
            try:
                running.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log.warning("process-killed", name=child.spec.name)
                running.process.kill()
                running.process.wait()
                tell = self._on_kill
            self._bury(child, running, tell)
        self._log.info("drained")


def _end_with_parent() -> None:
    """Have the kernel ask this child to leave if the supervisor is killed (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
