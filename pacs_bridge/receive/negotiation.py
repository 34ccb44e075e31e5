"""Association requests: who asks, for what, and what of it is accepted (PS3.8 9.3.2, 9.3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from dicom_seg.provenance import IMPLEMENTATION_CLASS_UID
from pacs_bridge.config.listener import ListenerConfig, OwnResults, TransferSyntax
from pacs_bridge.receive import sop_classes
from pacs_bridge.receive.landing import IMPLEMENTATION_VERSION_NAME
from pacs_bridge.receive.upper_layer import (
    APPLICATION_CONTEXT_UNKNOWN,
    CALLED_AE_TITLE_UNKNOWN,
    CALLING_AE_TITLE_UNKNOWN,
    PROTOCOL_VERSION_UNKNOWN,
    AbortReason,
    ProtocolError,
    Rejection,
)

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_PROTOCOL_VERSION_1 = 0x0001
_ACCEPTED = 0x00  # PS3.8 table 9-18
_ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03
_TRANSFER_SYNTAXES_NOT_SUPPORTED = 0x04
_UNCOMPRESSED = (TransferSyntax.EXPLICIT_LITTLE.uid, TransferSyntax.IMPLICIT_LITTLE.uid)


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What a peer asks for."""

    calling_ae_title: str
    called_ae_title: str
    application_context: str
    protocol_version: int
    contexts: tuple[PresentationContext, ...]
    primitive: A_ASSOCIATE


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is accepted, and the PDU that says so."""

    contexts: Mapping[int, Context]
    refused_sop_classes: tuple[str, ...]
    pdu: bytes


def decode_request(body: memoryview) -> AssociationRequest:
    """An association request from the body of an A-ASSOCIATE-RQ PDU.

    Raises
    ------
    ProtocolError
        If it cannot be decoded, whatever its bytes are.
    """
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(b"\x01\x00" + len(body).to_bytes(4, "big") + bytes(body))
        primitive = pdu.to_primitive()
        return AssociationRequest(
            calling_ae_title=str(primitive.calling_ae_title).strip(),
            called_ae_title=str(primitive.called_ae_title).strip(),
            application_context=str(primitive.application_context_name),
            protocol_version=pdu.protocol_version,
            contexts=tuple(primitive.presentation_context_definition_list),
            primitive=primitive,
        )
    except Exception as error:  # the library's decoder raises whatever hostile bytes lead it to
        raise ProtocolError(
            AbortReason.INVALID_PARAMETER, "an association request that cannot be decoded"
        ) from error


class Negotiator:
    """Decides about association requests.

    Parameters
    ----------
    config
        Own AE title, peers, transfer syntaxes.
    """

    def __init__(self, config: ListenerConfig) -> None:
        self._config = config
        images = tuple(syntax.uid for syntax in config.transfer_syntaxes)
        self._supported: dict[str, Sequence[str]] = {sop_classes.VERIFICATION: _UNCOMPRESSED}
        self._supported |= dict.fromkeys(sop_classes.IMAGES, images)
        if config.own_results is OwnResults.DISCARD:
            self._supported |= dict.fromkeys(sop_classes.RESULTS, images)

    def knows(self, address: str) -> bool:
        """Whether some peer may be at this IP address."""
        return any(peer.holds(address) for peer in self._config.peers)

    def refusal(self, request: AssociationRequest, address: str) -> Rejection | None:
        """Why this peer gets no association; None if it gets one."""
        if not request.protocol_version & _PROTOCOL_VERSION_1:
            return PROTOCOL_VERSION_UNKNOWN
        if request.application_context != _APPLICATION_CONTEXT:
            return APPLICATION_CONTEXT_UNKNOWN
        if not any(peer.allows(request.calling_ae_title, address) for peer in self._config.peers):
            return CALLING_AE_TITLE_UNKNOWN
        if request.called_ae_title != self._config.ae_title:
            return CALLED_AE_TITLE_UNKNOWN
        return None

    def accept(self, request: AssociationRequest) -> Acceptance:
        """Accept what we support of the proposed contexts.

        Of the transfer syntaxes of a context the first of ours is chosen that the peer proposes.
        Roles are the default ones (PS3.7 D.3.3.4): no role selection is answered.
        """
        results = [self._result(proposed) for proposed in request.contexts]
        primitive = A_ASSOCIATE()
        primitive.application_context_name = UID(_APPLICATION_CONTEXT)
        primitive.calling_ae_title = request.primitive.calling_ae_title
        primitive.called_ae_title = request.primitive.called_ae_title
        primitive.result = _ACCEPTED
        primitive.result_source = 0x01
        primitive.presentation_context_definition_results_list = results
        primitive.user_information = self._user_information()
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(primitive)
        accepted = [one for one in results if one.result == _ACCEPTED]
        return Acceptance(
            contexts={
                one.context_id: Context(
                    one.context_id, str(one.abstract_syntax), str(one.transfer_syntax[0])
                )
                for one in accepted
            },
            refused_sop_classes=tuple(
                sorted({str(one.abstract_syntax) for one in results} - set(self._supported))
            ),
            pdu=pdu.encode(),
        )

    def _result(self, proposed: PresentationContext) -> PresentationContext:
        result = PresentationContext()
        result.context_id = proposed.context_id
        result.abstract_syntax = proposed.abstract_syntax
        supported = self._supported.get(str(proposed.abstract_syntax))
        wanted = [uid for uid in supported or () if uid in proposed.transfer_syntax]
        if wanted:
            result.transfer_syntax = [UID(wanted[0])]
            result.result = _ACCEPTED
        else:
            result.transfer_syntax = proposed.transfer_syntax[:1]
            result.result = (
                _ABSTRACT_SYNTAX_NOT_SUPPORTED
                if supported is None
                else _TRANSFER_SYNTAXES_NOT_SUPPORTED
            )
        return result

    def _user_information(self) -> list[object]:
        length = MaximumLengthNotification()
        length.maximum_length_received = self._config.max_pdu_kib * 1024
        class_uid = ImplementationClassUIDNotification()
        class_uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        return [length, class_uid, version]
