"""The Storage SCP that a C-MOVE sends to: open while one series is fetched, for it alone."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from inference.reasons import Reason
from pacs_bridge.config.listener import ListenerConfig, PeerConfig
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.ledger.associations import AssociationOutcome, AssociationRecord
from pacs_bridge.log import Log
from pacs_bridge.receive.association import Acceptor
from pacs_bridge.receive.dimse import Command, Response
from pacs_bridge.receive.door import Door
from pacs_bridge.receive.header import is_valid_uid
from pacs_bridge.receive.landing import file_meta
from pacs_bridge.receive.negotiation import AssociationRequest, Context, Negotiator
from pacs_bridge.receive.status import Status
from pacs_bridge.receive.storage import DataSetSink, Refusal, Tally
from pacs_bridge.receive.upper_layer import LOCAL_LIMIT_EXCEEDED, Connection, Rejection
from pacs_bridge.sources.dimse_line import ArchiveLine
from pacs_bridge.sources.port_turn import PortTurn
from pacs_bridge.sources.received_series import IncomingFile, ReceivedSeries

_MAX_ASSOCIATIONS = 16
_PDU_TIMEOUT_S = 10.0
_PORT_WAIT_S = 0.25
_PORT_ATTEMPTS = 8
#: Five minutes; then the worker turns to another job, and this one is tried again.
_TURN_ATTEMPTS = 1200
_LAST_WAIT_S = 2.0
_MOST_MIB = 4096


class StoreDoor:
    """Takes the instances of one series from one archive; ``with StoreDoor(...) as door``.

    Parameters
    ----------
    config
        Of the source: the port is taken while this is open, and whoever comes second waits.
    series
        What is to come; anything else is refused.
    line
        That asked for it: told of every piece that comes, and cut at a fault of ours.
    log
        Told each association.
    check
        Called while waiting for the port.
    """

    def __init__(
        self,
        config: DimseSourceConfig,
        series: ReceivedSeries,
        line: ArchiveLine,
        log: Log,
        check: Callable[[], None],
    ) -> None:
        self._config = config
        self._series = series
        self._line = line
        self._log = log
        self._check = check
        self._limits = _listener(config)
        self._negotiator = Negotiator(self._limits)
        self._turn = PortTurn(config.move_bind, config.move_port)
        self._is_leaving = threading.Event()
        self.faults: list[BridgeError] = []  #: of ours, for which instances were refused

    def __enter__(self) -> StoreDoor:
        """Open it.

        Raises
        ------
        TransientError
            ``source-unreachable`` if the name of the archive has no address; ``cannot-listen``
            if a program that is none of ours has the port, or other fetches do not leave it.
        PermanentError
            ``cannot-listen`` if the address is none of this machine.
        """
        self._await_turn()
        try:
            self._door = self._bound()
        except BaseException:
            self._turn.give_back()
            raise
        self._door.open()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it; what is still being sent is cut off."""
        self._is_leaving.set()
        self._door.shut()
        self._turn.give_back()
        if not self._door.wait(_LAST_WAIT_S):
            self._door.cut()
            self._door.wait(_LAST_WAIT_S)

    def _await_turn(self) -> None:
        """Wait in line while other series are being fetched, whose fetches may hang."""
        config = self._config
        try:
            for _ in range(_TURN_ATTEMPTS):
                if self._turn.take():
                    return
                self._check()
                self._is_leaving.wait(_PORT_WAIT_S)
        except BaseException:
            self._turn.give_back()
            raise
        self._turn.give_back()
        self._log.warning("move-port-busy", source=config.name, port=config.move_port)
        raise TransientError(
            Reason.CANNOT_LISTEN,
            f"{config.name}: other fetches hold {config.move_bind}:{config.move_port}",
        )

    def _bound(self) -> Door:
        """The door at its port, which is ours to take."""
        config = self._config
        for _ in range(_PORT_ATTEMPTS):
            self._check()
            try:
                return Door(
                    config.move_bind, config.move_port, self._connect, self._serve, self._log
                )
            except PermanentError as error:
                if not _is_taken(error):
                    raise
                self._is_leaving.wait(_PORT_WAIT_S)
        self._log.error("move-port-taken", source=config.name, port=config.move_port)
        raise TransientError(
            Reason.CANNOT_LISTEN,
            f"{config.name}: another program listens at {config.move_bind}:{config.move_port}",
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._door.port

    def _connect(self, accepted: socket.socket, address: str) -> Connection:
        return Connection(accepted, address, _PDU_TIMEOUT_S, self._is_leaving.is_set)

    def _serve(self, connection: Connection) -> None:
        host = _Visit(self, self._door, connection)
        Acceptor(connection, self._limits, self._negotiator, host, self._log).run()

    def open_session(self, request: AssociationRequest, address: str) -> _Session:
        """What takes the instances of one association."""
        record = AssociationRecord(
            id=0,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=address,
        )
        return _Session(record, self._series, self._log, self._line.stir, self._fail)

    def _fail(self, error: BridgeError) -> None:
        """No more can be taken: end the request, whose thread then tells why."""
        self.faults.append(error)
        self._line.cut()


class _Visit:
    """The ``Host`` of one connection."""

    def __init__(self, store: StoreDoor, door: Door, connection: Connection) -> None:
        self._store = store
        self._door = door
        self._connection = connection

    def admit(self, _request: AssociationRequest) -> Rejection | None:
        has_room = self._door.enter(self._connection, _MAX_ASSOCIATIONS, _MAX_ASSOCIATIONS)
        return None if has_room else LOCAL_LIMIT_EXCEEDED

    def open_association(self, request: AssociationRequest, address: str) -> _Session:
        return self._store.open_session(request, address)

    def end_association(self, session: _Session, outcome: AssociationOutcome) -> None:
        pass


class _Session:
    """The ``Session`` of one association."""

    def __init__(
        self,
        association: AssociationRecord,
        series: ReceivedSeries,
        log: Log,
        stirred: Callable[[], None],
        failed: Callable[[BridgeError], None],
    ) -> None:
        self.association = association
        self.tally = Tally()
        self.log = log
        self._series = series
        self._stirred = stirred
        self._failed = failed

    def begin(self, command: Command, context: Context) -> DataSetSink:
        is_sound = command.affected_sop_class_uid == context.abstract_syntax and is_valid_uid(
            command.affected_sop_instance_uid
        )
        if not is_sound:
            return self._refused(Status.CANNOT_UNDERSTAND)
        try:
            file = self._series.begin()
            meta = file_meta(
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                context.transfer_syntax,
            )
            file.write(meta)
        except BridgeError as error:
            self._failed(error)
            return self._refused(Status.OUT_OF_RESOURCES)
        return _Sink(file, self._stirred, self._failed, self._settled)

    def _refused(self, status: Status) -> Refusal:
        self.tally.refused += 1
        return Refusal(lambda _head: Response(status))

    def _settled(self, error: BridgeError | None) -> Response:
        """What is answered for an instance that is whole."""
        if error is None:
            self.tally.kept += 1
            return Response(Status.SUCCESS)
        self.tally.refused += 1
        if error.reason is Reason.BAD_ANSWER:  # perhaps late, and of an earlier request
            return Response(Status.DATA_SET_DOES_NOT_MATCH, "not the series that was asked for")
        return Response(Status.OUT_OF_RESOURCES)


class _Sink:
    """A ``DataSetSink`` that writes to a file of the series."""

    def __init__(
        self,
        file: IncomingFile,
        stirred: Callable[[], None],
        failed: Callable[[BridgeError], None],
        settled: Callable[[BridgeError | None], Response],
    ) -> None:
        self._file = file
        self._stirred = stirred
        self._failed = failed
        self._settled = settled
        self._error: BridgeError | None = None

    def write(self, data: memoryview) -> None:
        self._stirred()
        if self._error is not None:
            return  # the peer does not listen before it has sent it all
        try:
            self._file.write(data)
        except BridgeError as error:
            self._error = error
            self._file.discard()
            self._failed(error)

    def finish(self) -> Response:
        try:
            if self._error is None:
                self._file.keep()
        except BridgeError as error:
            self._error = error
            if error.reason is not Reason.BAD_ANSWER:
                self._failed(error)
        finally:
            self._file.discard()
        return self._settled(self._error)

    def abandon(self) -> None:
        self._file.discard()


def _is_taken(error: PermanentError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def _listener(config: DimseSourceConfig) -> ListenerConfig:
    """Who may send: the archive, by its AE title, from its addresses."""
    if config.move_ae_title is None:
        raise PermanentError(Reason.SOURCE_REFUSED, f"{config.name}: no move_ae_title")
    addresses = config.move_addresses or _addresses(config.host)
    return ListenerConfig(
        ae_title=config.move_ae_title,
        bind=config.move_bind,
        port=config.move_port,
        peers=(PeerConfig(ae_title=config.ae_title, addresses=tuple(addresses)),),
        transfer_syntaxes=config.transfer_syntaxes,
        # the series itself keeps the limit, and says why
        max_instance_mib=min(config.max_instance_mib + 1, _MOST_MIB),
        max_multiframe_instance_mib=min(config.max_instance_mib + 1, _MOST_MIB),
        max_association_gib=config.max_series_gib,
        idle_timeout_s=config.response_timeout_s,
    )


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransientError(Reason.SOURCE_UNREACHABLE, f"{host}: {error.strerror}") from error
    return tuple(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
