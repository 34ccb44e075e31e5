"""An association with an archive, and what of it ends how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.deliver.line import Line
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.errors import PermanentError, TransientError

_NEGOTIATION_TIMEOUT_S = 30.0
_MAX_RECEIVED_PDU_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is asked for in negotiation."""

    contexts: Sequence[PresentationContext]
    needed: str  #: UID of the SOP class without which the association is of no use
    roles: Sequence[Any] = ()  #: SCP/SCU role selection (PS3.7 D.3.3.4)
    handlers: Sequence[tuple[Any, Callable[[Any], Any]]] = field(default=())


class ArchiveLine:
    """An association with an archive.

    Parameters
    ----------
    config
        Of the source.
    calling_ae_title
        Ours.
    """

    def __init__(self, config: DimseSourceConfig, calling_ae_title: str) -> None:
        self._config = config
        self._calling_ae_title = calling_ae_title
        self._line = Line(config.response_timeout_s)
        self._association: Association | None = None

    @property
    def name(self) -> str:
        """Names the archive in errors."""
        to = self._config
        return f"{to.name} ({to.ae_title} at {to.host}:{to.port})"

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._association is not None and bool(self._association.is_established)

    def open(self, proposal: Proposal, check: Callable[[], None] = lambda: None) -> None:
        """Associate.

        Parameters
        ----------
        proposal
            What to ask for.
        check
            Called now and then while waiting for the answer; what it raises ends that.

        Raises
        ------
        TransientError
            ``source-unreachable`` without an association, ``source-refused`` if it was rejected:
            either side may put that right.
        PermanentError
            ``source-refused`` if what is needed was not accepted.
        """
        to = self._config
        ae = AE(ae_title=self._calling_ae_title)
        ae.connection_timeout = to.connect_timeout_s
        ae.acse_timeout = _NEGOTIATION_TIMEOUT_S
        ae.dimse_timeout = None  # the watchdog keeps the time
        ae.network_timeout = None
        try:
            with self._line.within(to.connect_timeout_s + _NEGOTIATION_TIMEOUT_S, check):
                association = ae.associate(
                    to.host,
                    to.port,
                    contexts=list(proposal.contexts),
                    ae_title=to.ae_title,
                    max_pdu=_MAX_RECEIVED_PDU_BYTES,
                    ext_neg=list(proposal.roles),
                    evt_handlers=[*self._line.handlers(), *proposal.handlers],
                )
        except OSError as error:  # the name of the host has no address
            raise TransientError(
                Reason.SOURCE_UNREACHABLE, f"{self.name}: {type(error).__name__}"
            ) from None
        self._association = association
        accepted = {str(each.abstract_syntax) for each in association.accepted_contexts}
        if association.is_established and proposal.needed in accepted:
            keep_responses(association)
            return
        if association.is_rejected:
            said = association.acceptor.primitive
            raise TransientError(
                Reason.SOURCE_REFUSED,
                f"{self.name}: association rejected: {said.result_str}, {said.reason_str}",
            )
        if association.is_established or association.rejected_contexts:
            self.close()
            raise PermanentError(
                Reason.SOURCE_REFUSED, f"{self.name}: does not accept {proposal.needed}"
            )
        raise TransientError(Reason.SOURCE_UNREACHABLE, f"{self.name}: no association")

    def accepted_sop_classes(self) -> frozenset[str]:
        """Of the contexts that the archive accepted."""
        contexts = self._association.accepted_contexts if self._association else ()
        return frozenset(str(each.abstract_syntax) for each in contexts)

    @contextmanager
    def request(
        self,
        send: Callable[[Association], Iterator[tuple[Dataset, Dataset | None]]],
        check: Callable[[], None],
    ) -> Iterator[Iterator[tuple[int, Dataset, Dataset | None]]]:
        """The responses to one request: status, what comes with it, identifier.

        Raises
        ------
        TransientError
            ``source-unreachable`` if the association breaks or goes silent; from the iterator.
        """
        association = self._association
        if association is None:
            raise TransientError(Reason.SOURCE_UNREACHABLE, f"{self.name}: no association")
        with self._line.watched(check):
            try:
                yield self._responses(send(association))
            except (RuntimeError, ValueError) as error:  # the association ended under us
                raise TransientError(
                    Reason.SOURCE_UNREACHABLE, f"{self.name}: {type(error).__name__}"
                ) from None

    def stir(self) -> None:
        """Something moves that belongs to the request, over another connection."""
        self._line.stir()

    def cut(self) -> None:
        """End the connection under whoever waits for a response."""
        self._line.cut()

    def cancel(self, message_id: int, query_model: str) -> None:
        """C-CANCEL (PS3.7 9.3.2.3): no more responses are wanted."""
        if self._association is not None:
            with suppress(RuntimeError, ValueError):
                self._association.send_c_cancel(message_id, query_model=query_model)

    def close(self) -> None:
        """Release the association if it is in order, and end the connection."""
        association, self._association = self._association, None
        try:
            if association is not None and association.is_established:
                with self._line.watched():
                    association.release()
        finally:
            if association is not None and association.is_established:
                self._line.abort(association)
            self._line.close()
            self._line = Line(self._config.response_timeout_s)

    def abort(self) -> None:
        """End the association without a word: what it was asked for is of no more use."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            self._line.abort(association)
        self._line.close()
        self._line = Line(self._config.response_timeout_s)

    def _responses(
        self, answers: Iterator[tuple[Dataset, Dataset | None]]
    ) -> Iterator[tuple[int, Dataset, Dataset | None]]:
        for status, identifier in answers:
            if "Status" not in status:
                raise TransientError(
                    Reason.SOURCE_UNREACHABLE, f"{self.name}: association broke or went silent"
                )
            yield int(status.Status), status, identifier
