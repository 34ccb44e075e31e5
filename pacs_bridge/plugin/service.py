"""The plugin as a whole: its threads, and what Orthanc's callbacks are told.

Callbacks only note and wake: whatever takes time is done by two threads, one that follows the
changes and sends, one that looks after the bridge's process.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping

from pacs_bridge.plugin.announcer import Announcer
from pacs_bridge.plugin.bridge_client import BridgeClient
from pacs_bridge.plugin.bridge_process import BridgeProcess
from pacs_bridge.plugin.carrier import Carrier
from pacs_bridge.plugin.change_log import ChangeLog
from pacs_bridge.plugin.follower import Follower
from pacs_bridge.plugin.known_faults import version_warnings
from pacs_bridge.plugin.notes import NoteBook
from pacs_bridge.plugin.routes import Answer, RouteFault, Routes, refusal
from pacs_bridge.plugin.server import LeavingError, OrthancServer
from pacs_bridge.plugin.settings import Reading, Settings

#: Between two looks at what is being sent, and at the bridge's process.
_BUSY_S = 0.5
#: Between two looks when nothing is to be done: a wake that was missed costs no more than this.
#: And the longest between two tries to open the notes.
_IDLE_S = 15.0
#: Between two log lines of one fault.
_SAID_S = 60.0


class PluginService:
    """Follows, sends, starts, answers.

    Parameters
    ----------
    server
        Orthanc.
    reading
        What became of the settings; with faults the plugin only says so.
    """

    def __init__(self, server: OrthancServer, reading: Reading) -> None:
        self._server = server
        self._reading = reading
        self._warnings = list(reading.warnings)
        self._leave = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []
        self._client: BridgeClient | None = None
        self._process: BridgeProcess | None = None
        self._working: _Working | None = None
        self._hindrance = ""  #: why it does not work yet
        self._is_second = False  #: whether that is another Orthanc with the same notes
        self._log_start: int | None = None  # where the log of changes ended when Orthanc started
        self._has_warned = False
        self._said: dict[str, float] = {}  # faults of late, and when; steady

    def start(self) -> None:
        """Begin, once Orthanc answers its own plugins."""
        for fault in self._reading.faults:
            self._server.error(f"{fault}; the plugin does nothing")
        for warning in self._reading.warnings:
            self._server.warning(warning)
        settings = self._reading.settings
        if settings is None:
            return
        url = settings.control_url
        if url:
            self._client = BridgeClient(url, settings.token_file, settings.ca_file)
        self._process = BridgeProcess(settings, self._client, self._server)
        self._guarded(self._find_log_start, 0.0)
        self._begin(settings)
        self._guarded(lambda: self._warn(settings), 0.0)
        for name, step in (("carry", self._carry), ("bridge", self._keep_bridge)):
            thread = threading.Thread(target=step, args=(settings,), name=f"pacs-{name}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads, and the bridge if it was started here; afterwards nothing runs.

        What the threads are about is broken off at its next call of Orthanc or of the bridge.
        """
        self._leave.set()
        self._wake.set()
        self._server.leave()
        if self._client is not None:
            self._client.leave()
        for thread in self._threads:
            thread.join()
        if self._working is not None:
            self._working.notes.close()

    def series_is_stable(self) -> None:
        """A series became stable: it stands in the log of changes."""
        self._wake.set()

    def job_ended(self, job: str, is_success: bool) -> None:
        """A job of Orthanc ended."""
        if self._working is not None:
            self._working.carrier.job_ended(job, is_success)
            self._wake.set()

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """What a caller of the REST API is told."""
        if self._working is not None:
            return self._working.routes.answer(method, path, headers)
        if method == "GET" and path.rstrip("/") == "status":
            return Answer(200, self._own_status())
        faults = "; ".join(self._faults()) or "the plugin is not wanted, or not ready"
        return refusal(503, RouteFault.NOT_CONFIGURED, faults)

    def _faults(self) -> list[str]:
        hindrance = self._hindrance
        return [*self._reading.faults, *([hindrance] if hindrance else [])]

    def _own_status(self) -> Mapping[str, object]:
        working = self._working
        notes = () if working is None else working.notes.all()
        place = None if working is None else working.notes.place
        return {
            "is_working": working is not None,
            "faults": self._faults(),
            "warnings": self._warnings,
            "process": "" if self._process is None else self._process.state,
            "position": None if place is None else place.position,
            "deleted_before_sent": 0 if working is None else working.carrier.deleted_count,
            "transfers": dict(Counter(str(note.stage) for note in notes)),
        }

    def _begin(self, settings: Settings) -> None:
        """Open the notes, if that can be done now: a disk that is full is not so for ever."""
        try:
            if self._working is None:
                self._working = _Working(
                    self._server, settings, self._client, self._wake.set, self._own_status
                )
                self._warnings += self._working.notes.faults
                self._hindrance, self._is_second = "", False
        except Exception as error:  # Orthanc itself goes on without us
            self._is_second = isinstance(error, BlockingIOError)
            self._hindrance = f"cannot begin yet: {error}"
            self._say(self._hindrance)

    def _find_log_start(self) -> None:
        """Ask where the log ends: what comes from now on is new, whenever the notes open."""
        if self._log_start is None:
            self._log_start = ChangeLog(self._server).last()

    def _warn(self, settings: Settings) -> None:
        """Say what is wrong with versions, and with what the settings name."""
        if self._has_warned:
            return
        versions = self._server.get("/system")["Version"], self._python_plugin()
        found = list(version_warnings(*versions))
        if settings.modality not in self._server.get("/modalities"):
            found.append(f"DicomModalities has no {settings.modality!r}: nothing can be sent")
        for warning in found:
            self._server.warning(warning)
        self._warnings += found
        self._has_warned = True

    def _python_plugin(self) -> str:
        facts = self._server.find("/plugins/python") or {}
        return str(facts.get("Version", ""))

    def _carry(self, settings: Settings) -> None:
        wait_s = _BUSY_S
        while self._working is None and not self._leave.wait(wait_s):
            self._guarded(self._find_log_start, 0.0)
            self._begin(settings)
            wait_s = min(_IDLE_S, 2.0 * wait_s)
        if self._working is not None:
            self._carry_on(settings, self._working)

    def _carry_on(self, settings: Settings, working: _Working) -> None:
        has_begun = has_more = False

        def step() -> None:
            nonlocal has_begun, has_more
            has_more = False
            if not has_begun:
                self._find_log_start()
                working.follower.begin(self._log_start)
                working.carrier.forget_gone()
                has_begun = True
            has_more = working.follower.follow()

        looked_s = -math.inf
        while not self._leave.is_set():
            self._guarded(lambda: self._warn(settings))
            self._guarded(step)
            # Also where the log cannot be read, or is long: what is known of it can be sent.
            if has_begun and (not has_more or time.monotonic() - looked_s >= _BUSY_S):
                self._guarded(working.carrier.look)
                looked_s = time.monotonic()
            if has_more:
                continue
            due_s = working.carrier.next_due_s()
            idle_s = _IDLE_S if due_s is None else due_s - time.monotonic()
            wait_s = min(_IDLE_S, max(_BUSY_S, idle_s))
            self._wake.wait(wait_s if has_begun and self._has_warned else _BUSY_S)
            self._wake.clear()

    def _keep_bridge(self, settings: Settings) -> None:
        if not settings.command or self._process is None:
            return
        while not self._leave.is_set():
            if not self._is_second:  # the bridge is the other Orthanc's
                self._guarded(self._process.look)
            self._leave.wait(_BUSY_S)
        self._process.stop()

    def _guarded(self, step: Callable[[], None], wait_s: float = _BUSY_S) -> None:
        """Do a step; whatever goes wrong is said, and tried again after a wait."""
        try:
            step()
        except LeavingError:
            return
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._say(f"{type(error).__name__} at {place.name}:{place.lineno}: {error}")
            self._leave.wait(wait_s)

    def _say(self, fault: str) -> None:
        """Log a fault; one that stays, such as a full disk, is not said at every look."""
        now_s = time.monotonic()
        self._said = {one: at_s for one, at_s in self._said.items() if now_s - at_s < _SAID_S}
        if fault not in self._said:
            self._said[fault] = now_s
            self._server.error(fault)


class _Working:
    """The parts of a plugin that has its settings and its notes."""

    def __init__(
        self,
        server: OrthancServer,
        settings: Settings,
        client: BridgeClient | None,
        wake: Callable[[], None],
        status: Callable[[], Mapping[str, object]],
    ) -> None:
        self.notes = NoteBook.open_alone(settings.notes_file)
        for fault in self.notes.faults:
            server.error(fault)
        self.follower = Follower(server, self.notes, settings)
        self.carrier = Carrier(server, self.notes, settings, Announcer(server, client))
        self.routes = Routes(server, self.notes, client, wake, status)
