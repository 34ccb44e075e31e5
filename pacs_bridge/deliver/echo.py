"""Asking a destination whether it is there, and what it would take."""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom import AE, build_context
from pynetdicom.association import Association

from inference.reasons import Reason
from pacs_bridge.config.destinations import ResultKind, StoreDestinationConfig
from pacs_bridge.deliver.line import Line
from pacs_bridge.deliver.negotiation import Syntax
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.deliver.store_scu import UnreachableError

_VERIFICATION = "1.2.840.10008.1.1"
_SOP_CLASS = {
    ResultKind.BINARY: "1.2.840.10008.5.1.4.1.1.66.4",
    ResultKind.LABELMAP: "1.2.840.10008.5.1.4.1.1.66.7",
}
_SUCCESS = 0x0000
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination said."""

    is_alive: bool  #: whether C-ECHO succeeded, or the peer knows no Verification
    echo: str  #: how C-ECHO went (PS3.4 A.4), for people
    kinds: frozenset[ResultKind]  #: kinds of Segmentation that it accepts in negotiation


def ask(destination: StoreDestinationConfig, calling_ae_title: str) -> Answer:
    """Associate, send C-ECHO, and see which kinds are accepted.

    Raises
    ------
    UnreachableError
        ``send-timeout`` if there is no association, ``send-refused`` if the peer rejects it.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = destination.connect_timeout_s
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    syntaxes = [Syntax.EXPLICIT_LITTLE.value, Syntax.IMPLICIT_LITTLE.value]
    contexts = [build_context(uid, syntaxes) for uid in (_VERIFICATION, *_SOP_CLASS.values())]
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    line = Line(_TIMEOUT_S)
    try:
        with line.within(destination.connect_timeout_s + _TIMEOUT_S):
            association = ae.associate(
                destination.host,
                destination.port,
                contexts,
                destination.ae_title,
                evt_handlers=line.handlers(),
            )
        if association.is_rejected:
            said = association.acceptor.primitive
            raise UnreachableError(
                Reason.SEND_REFUSED, f"{where}: rejected: {said.result_str}, {said.reason_str}"
            )
        if not association.is_established:
            raise UnreachableError(Reason.SEND_TIMEOUT, f"{where}: no association")
        keep_responses(association)
        with line.watched():
            return _converse(association)
    except (OSError, RuntimeError) as error:  # no such host; the association ended under us
        raise UnreachableError(Reason.SEND_TIMEOUT, f"{where}: {error}") from error
    finally:
        line.close()


def _converse(association: Association) -> Answer:
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    alive, echo = True, "no Verification"
    if _VERIFICATION in accepted:
        status = association.send_c_echo().get("Status")
        alive, echo = status == _SUCCESS, "C-ECHO succeeded"
        if not alive:
            said = "no answer" if status is None else f"status {status:04X}H"
            echo = f"C-ECHO failed: {said}"
    association.release()
    kinds = frozenset(kind for kind, uid in _SOP_CLASS.items() if uid in accepted)
    return Answer(alive, echo, kinds)
