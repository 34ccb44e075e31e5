"""The C-GET SCU in the Study Root model (PS3.4 C.4.3): instances over the same association."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.errors import BridgeError, PermanentError
from pacs_bridge.receive.landing import file_meta
from pacs_bridge.receive.sop_classes import IMAGES
from pacs_bridge.receive.status import Status
from pacs_bridge.sources.dimse_line import ArchiveLine, Proposal
from pacs_bridge.sources.dimse_status import PENDING, SOME_FAILED, SUCCESS, refusal
from pacs_bridge.sources.received_series import ReceivedSeries
from pacs_bridge.sources.sub_operations import SubOperations

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_Answers = Iterator[tuple[Dataset, Dataset | None]]


class GetScu:
    """Retrieves from one archive. For one thread.

    Parameters
    ----------
    config
        Of the source.
    calling_ae_title
        Ours.
    sop_classes
        Of what is to come, as far as it is known.
    """

    def __init__(
        self, config: DimseSourceConfig, calling_ae_title: str, sop_classes: frozenset[str]
    ) -> None:
        self._config = config
        self._calling_ae_title = calling_ae_title
        self._sop_classes = sop_classes

    def retrieve(
        self,
        identifier: Dataset,
        series: ReceivedSeries,
        check: Callable[[], None],
        asked: Callable[[], None] = lambda: None,
    ) -> SubOperations:
        """Take what one request gives; what came before an error is kept.

        Every transfer syntax is proposed in a presentation context of its own, so that the
        archive can send each instance as it has it. ``asked`` is called when the request was
        sent.

        Raises
        ------
        TransientError, PermanentError
            As ``ArchiveLine.open``, ``refusal`` and ``ReceivedSeries.take``; ``source-refused`` if
            the archive takes no presentation context in which it could send the images.
        """
        line = ArchiveLine(self._config, self._calling_ae_title)
        taker = _Taker(series, line)

        def send(association: Association) -> _Answers:
            answers: _Answers = association.send_c_get(identifier, STUDY_ROOT_GET)
            asked()
            return answers

        try:
            line.open(_proposal(self._config, taker.handlers()), check)
            self._check_contexts(line)
            told = SubOperations()
            with line.request(send, check) as responses:
                for status, said, _ in responses:
                    told = SubOperations.of(said)
                    if status not in (*PENDING, SUCCESS, SOME_FAILED):
                        raise refusal(status, f"{line.name}: C-GET, {told}")
        except BridgeError as error:
            line.abort()
            raise (taker.fault or error) from error
        except BaseException:
            line.abort()
            raise
        line.close()
        return told

    def _check_contexts(self, line: ArchiveLine) -> None:
        """What was not accepted in negotiation can never come, however often it is asked for."""
        accepted = line.accepted_sop_classes().intersection(IMAGES)
        lacking = self._sop_classes.intersection(IMAGES) - accepted
        if lacking or not accepted:
            what = ", ".join(sorted(lacking)) or "any image"
            raise PermanentError(
                Reason.SOURCE_REFUSED, f"{line.name}: would not send {what} by C-GET; try c-move"
            )


class _Taker:
    """The Storage SCP of the association (role selection, PS3.7 D.3.3.4)."""

    def __init__(self, series: ReceivedSeries, line: ArchiveLine) -> None:
        self._series = series
        self._line = line
        self._message_bytes = 0
        self.fault: BridgeError | None = None

    def handlers(self) -> Sequence[tuple[Any, Callable[[Any], Any]]]:
        return ((evt.EVT_C_STORE, self._store), (evt.EVT_DATA_RECV, self._count))

    def _store(self, event: Any) -> int:
        self._message_bytes = 0
        request = event.request
        meta = file_meta(
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
            str(event.context.transfer_syntax),
        )
        try:
            self._series.take((meta, request.DataSet.getbuffer()))
        except BridgeError as error:  # raised by whoever waits for the response
            self._end(error)
            return Status.OUT_OF_RESOURCES
        return Status.SUCCESS

    def _count(self, event: Any) -> None:
        """A message is held in memory until it is whole: one without end must not be."""
        self._message_bytes += len(event.data)
        try:
            self._series.check_size(self._message_bytes)
        except BridgeError as error:
            self._end(error)

    def _end(self, error: BridgeError) -> None:
        self.fault = self.fault or error
        self._line.cut()


def _proposal(
    config: DimseSourceConfig, handlers: Sequence[tuple[Any, Callable[[Any], Any]]]
) -> Proposal:
    syntaxes = [syntax.uid for syntax in config.transfer_syntaxes]
    contexts = [build_context(STUDY_ROOT_GET, [_EXPLICIT_LITTLE, _IMPLICIT_LITTLE])]
    contexts += [build_context(image, syntax) for image in IMAGES for syntax in syntaxes]
    return Proposal(
        contexts=contexts,
        needed=STUDY_ROOT_GET,
        roles=[build_role(image, scp_role=True) for image in IMAGES],
        handlers=handlers,
    )
