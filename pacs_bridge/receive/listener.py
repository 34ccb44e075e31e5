"""The listener: everything between the port and the ledger."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from inference.reasons import Reason
from pacs_bridge.clock import Clock, SystemClock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.associations import (
    AssociationEnd,
    AssociationOutcome,
    AssociationRecord,
)
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.receive.association import Acceptor
from pacs_bridge.receive.collector import Collector
from pacs_bridge.receive.committer import Committer, Point
from pacs_bridge.receive.door import Door
from pacs_bridge.receive.landing import LandingFolder
from pacs_bridge.receive.negotiation import AssociationRequest, Negotiator
from pacs_bridge.receive.spool import Spool
from pacs_bridge.receive.storage import Depot, StorageSession
from pacs_bridge.receive.upper_layer import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    Connection,
    Rejection,
)

_GIB = 1 << 30
_LOCK_NAME = "listener.lock"
_LEDGER_WAIT_S = 10.0
_LAST_WAIT_S = 5.0


class Listener:
    """Storage and Verification SCP, spool and collector of one data folder.

    Parameters
    ----------
    config
        The whole of it.
    log
        Where to tell.
    clock
        For waiting and stamping.
    reached
        Told at each ``Point`` on the way of an instance.

    Raises
    ------
    PermanentError
        ``cannot-listen``, if the port is taken or another listener has the data folder.
    """

    def __init__(
        self,
        config: BridgeConfig,
        log: Log,
        clock: Clock | None = None,
        reached: Callable[[Point], None] = lambda _point: None,
    ) -> None:
        clock = clock or SystemClock()
        self._config = config
        self._log = log
        self._is_leaving = threading.Event()
        self._is_stopped = threading.Event()
        self._sessions: set[StorageSession] = set()
        self._sessions_lock = threading.Lock()
        self._newest_id = 0
        self._negotiator = Negotiator(config.listener)
        config.data_folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as resources:
            resources.callback(os.close, _lock(config))
            self._door = Door(
                config.listener.bind, config.listener.port, self._connect, self._serve, log
            )
            resources.callback(self._door.close)
            self._ledger = Ledger.open(config.ledger_path, clock, _LEDGER_WAIT_S)
            resources.callback(self._ledger.close)
            self._spool = Spool(config.data_folder, config.spool_folder, config.quarantine_folder)
            landing = LandingFolder(self._spool.landing_folder)
            undone = self._spool.recover(self._ledger.instances.is_entered)
            self._serials = itertools.count(self._ledger.associations.begin_epoch() + 1)
            self._resources = resources.pop_all()
        self._committer = Committer(self._ledger, self._spool, log, reached)
        self._depot = Depot(
            landing=landing,
            spool=self._spool,
            committer=self._committer,
            identity=IdentityHash.load(config.data_folder),
            is_own_result=self._ledger.instances.is_own_result,
            reserve_free_bytes=int(config.disk.reserve_free_gib * _GIB),
            log=log,
        )
        collector = Collector(
            self._ledger, config.collector, config.routes, clock, log, self._is_disputed
        )
        self._collecting = threading.Thread(
            target=self._collect, args=(collector,), name="collector"
        )
        log.info("listener-opened", port=self.port, bind=config.listener.bind, undone=undone)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._door.port

    def start(self) -> None:
        """Begin to accept associations."""
        self._collecting.start()
        self._door.open()

    def stop(self, drain_timeout_s: float | None = None) -> None:
        """Accept no more, let open associations finish, and end; a second call does nothing.

        An association that is still open shortly before the time-out is aborted, but not before
        the instance that it is sending has its status, unless it takes until the time-out.

        Parameters
        ----------
        drain_timeout_s
            For all of it, but for 10 s that instances under way get in any case. None: what the
            configuration says.
        """
        if self._is_stopped.is_set():
            return
        if drain_timeout_s is None:
            drain_timeout_s = self._config.listener.drain_timeout_s
        self._log.info("listener-draining", associations=self._door.inside())
        self._door.shut()
        deadline = time.monotonic() + drain_timeout_s - 2 * _LAST_WAIT_S
        while self._door.inside() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._is_leaving.set()
        if not self._door.wait(_LAST_WAIT_S):
            self._door.cut()
            self._door.wait(_LAST_WAIT_S)
        self._is_stopped.set()
        self._collecting.join()
        self._committer.write_ends()
        self._resources.close()
        self._log.info("listener-closed")

    def _connect(self, accepted: socket.socket, address: str) -> Connection:
        return Connection(
            accepted, address, self._config.listener.pdu_timeout_s, self._is_leaving.is_set
        )

    def _serve(self, connection: Connection) -> None:
        host = _Visit(self, connection)
        listener = self._config.listener
        Acceptor(connection, listener, self._negotiator, host, self._log).run()

    def admit(self, connection: Connection) -> Rejection | None:
        """Why there is no room for an association now; None if there is."""
        disk = self._config.disk
        try:
            is_full = self._spool.free_bytes() < disk.accept_above_free_gib * _GIB
            if is_full or self._committer.is_broken or self._is_crowded(disk.max_waiting_series):
                return TEMPORARY_CONGESTION
        except (OSError, BridgeError):
            return TEMPORARY_CONGESTION
        limits = self._config.listener
        if not self._door.enter(
            connection, limits.max_associations, limits.max_associations_per_address
        ):
            return LOCAL_LIMIT_EXCEEDED
        return None

    def open_association(self, request: AssociationRequest, address: str) -> StorageSession:
        """Number an association, in the order of opening."""
        with self._sessions_lock:
            self._newest_id = next(self._serials)
            record = AssociationRecord(
                id=self._newest_id,
                calling_ae_title=request.calling_ae_title,
                called_ae_title=request.called_ae_title,
                address=address,
            )
            session = StorageSession(self._depot, record)
            self._sessions.add(session)
        return session

    def end_association(self, session: StorageSession, outcome: AssociationOutcome) -> None:
        """Hand the end of an association to the ledger."""
        end = AssociationEnd(
            id=session.association.id,
            outcome=outcome,
            newest_id=self._newest_id,
            refused=session.refused,
            has_unknown_loss=session.has_unknown_loss,
        )
        self._committer.end(end)
        with self._sessions_lock:
            self._sessions.discard(session)

    def _is_disputed(self, series_instance_uid: str) -> bool:
        """Whether the ledger has yet to hear of something that was refused."""
        if self._committer.has_unwritten_ends:
            return True
        with self._sessions_lock:
            return any(session.disputes(series_instance_uid) for session in self._sessions)

    def _is_crowded(self, max_waiting_series: int) -> bool:
        return bool(max_waiting_series) and self._ledger.view.waiting() >= max_waiting_series

    def _collect(self, collector: Collector) -> None:
        while not self._is_stopped.wait(self._config.collector.check_interval_s):
            try:
                self._committer.write_ends()
                collector.look()
            except TransientError as error:
                self._log.error("collector-waits", reason=error.reason)
            except Exception as error:
                self._log.fault("collector-failed", error)


class _Visit:
    """The ``Host`` of one connection."""

    def __init__(self, listener: Listener, connection: Connection) -> None:
        self._listener = listener
        self._connection = connection

    def admit(self, _request: AssociationRequest) -> Rejection | None:
        return self._listener.admit(self._connection)

    def open_association(self, request: AssociationRequest, address: str) -> StorageSession:
        return self._listener.open_association(request, address)

    def end_association(self, session: StorageSession, outcome: AssociationOutcome) -> None:
        self._listener.end_association(session, outcome)


def _lock(config: BridgeConfig) -> int:
    """Hold the data folder for this listener alone, until the process ends."""
    descriptor = os.open(config.data_folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise PermanentError(
            Reason.CANNOT_LISTEN, f"another listener has {config.data_folder}"
        ) from error
    return descriptor
