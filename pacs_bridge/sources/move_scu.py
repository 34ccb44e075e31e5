"""The C-MOVE SCU (PS3.4 C.4.2): instances come over an association that the archive opens to us."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association

from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.errors import BridgeError
from pacs_bridge.log import Log
from pacs_bridge.sources.dimse_line import ArchiveLine, Proposal
from pacs_bridge.sources.dimse_status import PENDING, SOME_FAILED, SUCCESS, refusal
from pacs_bridge.sources.received_series import ReceivedSeries
from pacs_bridge.sources.store_door import StoreDoor
from pacs_bridge.sources.sub_operations import SubOperations

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_Answers = Iterator[tuple[Dataset, Dataset | None]]


class MoveScu:
    """Retrieves from one archive, to a Storage SCP of ours. For one thread.

    Parameters
    ----------
    config
        Of the source.
    calling_ae_title
        Ours.
    log
        For the associations of the archive.
    """

    def __init__(self, config: DimseSourceConfig, calling_ae_title: str, log: Log) -> None:
        self._config = config
        self._calling_ae_title = calling_ae_title
        self._log = log

    def retrieve(
        self,
        identifier: Dataset,
        series: ReceivedSeries,
        check: Callable[[], None],
        asked: Callable[[], None] = lambda: None,
    ) -> SubOperations:
        """Take what one request gives; what came before an error is kept.

        ``asked`` is called when the request was sent.

        Raises
        ------
        TransientError, PermanentError
            As ``ArchiveLine.open``, ``refusal`` and ``ReceivedSeries.take``; ``cannot-listen`` if
            the address to be sent to is none of this machine, or another program's.
        """
        line = ArchiveLine(self._config, self._calling_ae_title)
        told = SubOperations()
        title = self._config.move_ae_title or ""

        def send(association: Association) -> _Answers:
            answers: _Answers = association.send_c_move(identifier, title, STUDY_ROOT_MOVE)
            asked()
            return answers

        with StoreDoor(self._config, series, line, self._log, check) as door:
            try:
                line.open(_PROPOSAL, check)
                with line.request(send, check) as responses:
                    for status, said, _ in responses:
                        told = SubOperations.of(said)
                        if status not in (*PENDING, SUCCESS, SOME_FAILED):
                            raise refusal(status, f"{line.name}: C-MOVE, {told}")
            except BridgeError as error:
                line.abort()
                raise (door.faults[0] if door.faults else error) from error
            except BaseException:
                line.abort()
                raise
        line.close()
        if door.faults:
            raise door.faults[0]
        return told


_PROPOSAL = Proposal(
    contexts=(build_context(STUDY_ROOT_MOVE, [_EXPLICIT_LITTLE, _IMPLICIT_LITTLE]),),
    needed=STUDY_ROOT_MOVE,
)
