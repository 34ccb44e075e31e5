"""One association, from its request to its end (PS3.8 9.2, the acceptor's states).

A thread of its own reads it. Each PDU is one step, so the states of the Standard's table are
the places in this code: waiting for a request (Sta2), data transfer (Sta6), waiting for the
peer to close (Sta13).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pacs_bridge.config.listener import MIB, ListenerConfig
from pacs_bridge.ledger.associations import AssociationOutcome, AssociationRecord
from pacs_bridge.log import Log
from pacs_bridge.receive import sop_classes
from pacs_bridge.receive.dimse import (
    Command,
    CommandError,
    CommandField,
    Response,
    decode_command,
    encode_response,
)
from pacs_bridge.receive.negotiation import (
    Acceptance,
    AssociationRequest,
    Context,
    Negotiator,
    decode_request,
)
from pacs_bridge.receive.status import Status
from pacs_bridge.receive.storage import DataSetSink, Tally
from pacs_bridge.receive.upper_layer import (
    CALLING_AE_TITLE_UNKNOWN,
    RELEASE_RP,
    AbortReason,
    Connection,
    ConnectionEndedError,
    PduType,
    Pdv,
    ProtocolError,
    Rejection,
    data_pdu,
    pdvs,
)

#: 128 contexts with 16 transfer syntaxes each and all negotiation items stay well below.
_MAX_REQUEST_BYTES = 1 * MIB
_MAX_COMMAND_BYTES = 16 * 1024
#: A sender that rounds up PDU lengths is not a bomb.
_PDU_SLACK_BYTES = 1024
_CLOSE_WAIT_S = 2.0


class Session(Protocol):
    """Takes what an association sends."""

    @property
    def association(self) -> AssociationRecord:
        """Who sends."""
        ...

    @property
    def tally(self) -> Tally:
        """What came of the messages so far."""
        ...

    @property
    def log(self) -> Log:
        """For the association's beginning and end."""
        ...

    def begin(self, command: Command, context: Context) -> DataSetSink:
        """Prepare for the data set of a C-STORE request."""
        ...


_Session = TypeVar("_Session", bound=Session)


class Host(Protocol[_Session]):
    """What an association asks of the listener that accepted it."""

    def admit(self, request: AssociationRequest) -> Rejection | None:
        """Why there is no room for it now; None if there is, and it is taken."""
        ...

    def open_association(self, request: AssociationRequest, address: str) -> _Session:
        """Give it its place in the order of opening."""
        ...

    def end_association(self, session: _Session, outcome: AssociationOutcome) -> None:
        """Note how it ended; called once for each that was opened."""
        ...


@dataclass(slots=True)
class _Message:
    """A message of which some fragments have come."""

    context: Context
    command_bytes: bytearray
    command: Command | None = None
    sink: DataSetSink | None = None
    data_bytes: int = 0


class Acceptor(Generic[_Session]):
    """Serves one connection.

    Parameters
    ----------
    connection
        Just accepted.
    config
        Limits.
    negotiator
        Who gets what.
    host
        The listener.
    log
        For associations that do not come about.
    """

    def __init__(
        self,
        connection: Connection,
        config: ListenerConfig,
        negotiator: Negotiator,
        host: Host[_Session],
        log: Log,
    ) -> None:
        self._connection = connection
        self._config = config
        self._negotiator = negotiator
        self._host = host
        self._log = log

    def run(self) -> None:
        """Serve the connection until it ends; raises nothing that a peer can bring about."""
        try:
            request = self._request()
            if request is None:
                return
            acceptance = self._negotiator.accept(request)
        except ProtocolError as error:
            self._abort(error)
            return
        except ConnectionEndedError as error:
            self._log.debug("no-association", address=self._connection.address, why=str(error))
            return
        session = self._host.open_association(request, self._connection.address)
        _Established(self._connection, self._config, session, acceptance).run(self._host)

    def _request(self) -> AssociationRequest | None:
        """The association request; None if it was rejected."""
        pdu = self._connection.read_pdu(
            self._config.association_request_timeout_s, _MAX_REQUEST_BYTES
        )
        if pdu.type != PduType.ASSOCIATE_RQ:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"PDU type {pdu.type} before all else")
        if not self._negotiator.knows(self._connection.address):  # a stranger is not parsed
            self._turn_away(CALLING_AE_TITLE_UNKNOWN)
            return None
        request = decode_request(pdu.body)
        rejection = self._negotiator.refusal(request, self._connection.address)
        rejection = rejection or self._host.admit(request)
        if rejection is None:
            return request
        self._turn_away(rejection, request.calling_ae_title, request.called_ae_title)
        return None

    def _turn_away(self, rejection: Rejection, calling: str = "", called: str = "") -> None:
        self._connection.reject(rejection)
        self._connection.finish(_CLOSE_WAIT_S)
        self._log.warning(
            "association-rejected",
            calling=calling,
            called=called,
            address=self._connection.address,
            rejection="/".join(map(str, rejection)),
        )

    def _abort(self, error: ProtocolError) -> None:
        self._connection.abort(error.reason)
        self._connection.finish(_CLOSE_WAIT_S)
        self._log.warning("aborted-by-us", address=self._connection.address, why=error.what)


class _Established(Generic[_Session]):
    """An association in data transfer."""

    def __init__(
        self,
        connection: Connection,
        config: ListenerConfig,
        session: _Session,
        acceptance: Acceptance,
    ) -> None:
        self._connection = connection
        self._config = config
        self._session = session
        self._acceptance = acceptance
        self._record = session.association
        self._log = session.log
        self._message: _Message | None = None
        self._instances = 0
        self._bytes = 0
        self._began_s = time.monotonic()
        self._log.info(
            "association-accepted",
            calling=self._record.calling_ae_title,
            address=self._record.address,
            contexts=len(acceptance.contexts),
            refused_sop_classes=len(acceptance.refused_sop_classes),
            refused_results=len(set(acceptance.refused_sop_classes) & set(sop_classes.RESULTS)),
        )

    def run(self, host: Host[_Session]) -> None:
        """Serve until the end; a release is noted before it is answered."""
        outcome, why = AssociationOutcome.ABORTED, ""
        try:
            self._connection.send(self._acceptance.pdu)
            self._serve()
            outcome = AssociationOutcome.RELEASED
        except ProtocolError as error:
            why = error.what
            self._connection.abort(error.reason)
        except ConnectionEndedError as error:
            why = str(error)
            self._connection.abort(AbortReason.NOT_SPECIFIED)
        except Exception as error:  # a fault of ours ends this association and no other
            why = "internal-error"
            self._log.fault("association-failed", error)
            self._connection.abort(AbortReason.NOT_SPECIFIED)
        finally:
            try:
                self._abandon()
            finally:
                host.end_association(self._session, outcome)
        if outcome is AssociationOutcome.RELEASED:
            self._answer_release()
        self._connection.finish(_CLOSE_WAIT_S)
        self._note_end(outcome, why)

    def _abandon(self) -> None:
        """Let go of the message that is under way, if there is one."""
        if self._message is None or self._message.sink is None:
            return
        try:
            self._message.sink.abandon()
        except Exception as error:
            self._log.fault("abandon-failed", error)

    def _answer_release(self) -> None:
        try:
            self._connection.send(RELEASE_RP)
        except ConnectionEndedError:
            return  # it asked for the release: it had sent all

    def _serve(self) -> None:
        """Data transfer, until the peer asks for the release."""
        max_bytes = self._config.max_pdu_kib * 1024 + _PDU_SLACK_BYTES
        while True:
            pdu = self._connection.read_pdu(
                self._config.idle_timeout_s, max_bytes, may_leave=self._message is None
            )
            if pdu.type == PduType.DATA_TF:
                for pdv in pdvs(pdu.body):
                    self._take(pdv)
            elif pdu.type == PduType.RELEASE_RQ:
                if self._message is not None:
                    raise ProtocolError(AbortReason.UNEXPECTED_PDU, "release inside a message")
                return
            elif pdu.type == PduType.ABORT:
                raise ConnectionEndedError("aborted by the peer")
            else:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"PDU type {pdu.type}")

    def _take(self, pdv: Pdv) -> None:
        context = self._acceptance.contexts.get(pdv.context_id)
        if context is None:
            raise ProtocolError(
                AbortReason.INVALID_PARAMETER, f"context {pdv.context_id} was not accepted"
            )
        if self._message is None:
            self._message = _Message(context, bytearray())
        message = self._message
        if message.context is not context:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "two contexts in one message")
        if pdv.is_command:
            self._take_command(message, pdv)
        else:
            self._take_data(message, pdv)

    def _take_command(self, message: _Message, pdv: Pdv) -> None:
        if message.command is not None:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, "a command where data is due")
        message.command_bytes += pdv.data
        if len(message.command_bytes) > _MAX_COMMAND_BYTES:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a command that does not end")
        if not pdv.is_last:
            return
        try:
            message.command = decode_command(bytes(message.command_bytes))
        except CommandError as error:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, str(error)) from error
        if not message.command.has_data_set:
            self._answer(message, self._without_data(message))
        elif message.command.field == CommandField.C_STORE_RQ:
            self._begin_instance()
            message.sink = self._session.begin(message.command, message.context)

    def _take_data(self, message: _Message, pdv: Pdv) -> None:
        if message.command is None:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, "data before its command")
        message.data_bytes += len(pdv.data)
        self._bytes += len(pdv.data)
        self._check_size(message)
        if message.sink is not None:
            message.sink.write(pdv.data)
        if not pdv.is_last:
            return
        if message.sink is None:
            self._answer(message, self._without_data(message))
            return
        self._answer(message, message.sink.finish())

    def _answer(self, message: _Message, response: Response | None) -> None:
        self._message = None
        if response is not None and message.command is not None:
            command = encode_response(message.command, response)
            self._connection.send(data_pdu(message.context.id, command))

    def _without_data(self, message: _Message) -> Response | None:
        """The answer to whatever is not a C-STORE with its data set."""
        command = message.command
        if command is None or command.field == CommandField.C_CANCEL_RQ:
            return None  # PS3.7 9.3.2.3: nothing is answered to it
        if command.field == CommandField.C_ECHO_RQ:
            is_ours = message.context.abstract_syntax == sop_classes.VERIFICATION
            return Response(Status.SUCCESS if is_ours else Status.SOP_CLASS_NOT_SUPPORTED)
        if command.field == CommandField.C_STORE_RQ:
            return Response(Status.CANNOT_UNDERSTAND, "no data set")
        return Response(Status.UNRECOGNIZED_OPERATION)

    def _begin_instance(self) -> None:
        self._instances += 1
        if self._instances > self._config.max_association_instances:
            raise ProtocolError(
                AbortReason.NOT_SPECIFIED, f"more than {self._instances - 1} instances"
            )

    def _check_size(self, message: _Message) -> None:
        limit_mib = (
            self._config.max_multiframe_instance_mib
            if message.context.abstract_syntax in sop_classes.MULTI_FRAME_IMAGES
            else self._config.max_instance_mib
        )
        if message.data_bytes > limit_mib * MIB:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, f"an instance of over {limit_mib} MiB")
        if self._bytes > self._config.max_association_gib * 1024 * MIB:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "an association of too many bytes")

    def _note_end(self, outcome: AssociationOutcome, why: str) -> None:
        tally = self._session.tally
        note: Callable[..., None] = self._log.info
        if outcome is AssociationOutcome.ABORTED:
            note = self._log.warning
        note(
            "association-ended",
            outcome=outcome,
            why=why,
            calling=self._record.calling_ae_title,
            address=self._record.address,
            seconds=round(time.monotonic() - self._began_s, 3),
            kept=tally.kept,
            known=tally.known,
            quarantined=tally.quarantined,
            own_results=tally.own_results,
            refused=tally.refused,
            bytes=self._bytes,
        )
