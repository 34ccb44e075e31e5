"""C-STORE: from the fragments of a data set to a status that says what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.log import Log
from pacs_bridge.receive import sop_classes
from pacs_bridge.receive.committer import Committer
from pacs_bridge.receive.dimse import Command, Response
from pacs_bridge.receive.header import (
    HeaderError,
    InstanceHeader,
    is_valid_uid,
    read_header,
    series_uid_of,
)
from pacs_bridge.receive.landing import HEAD_BYTES, Landed, LandingFile, LandingFolder
from pacs_bridge.receive.negotiation import Context
from pacs_bridge.receive.spool import Spool
from pacs_bridge.receive.status import Status, status_of


@dataclass(frozen=True, slots=True)
class Depot:
    """What all associations of a listener store into."""

    landing: LandingFolder
    spool: Spool
    committer: Committer
    identity: IdentityHash
    is_own_result: Callable[[str], bool]  #: by SOP Instance UID
    reserve_free_bytes: int  #: below it no instance is accepted
    log: Log


class DataSetSink(Protocol):
    """Takes the data set of one message."""

    def write(self, data: memoryview) -> None:
        """Take a fragment; it is only valid during the call."""
        ...

    def finish(self) -> Response:
        """The data set is whole: what is answered."""
        ...

    def abandon(self) -> None:
        """The rest will not come."""
        ...


class Refusal:
    """A ``DataSetSink`` for a message whose answer is known before its data set has come.

    Parameters
    ----------
    answer
        Gives the response, from the beginning of the data set: enough to say which series lacks
        an instance now.
    abandoned
        Told the beginning, as far as it came, when the rest will not come.
    """

    def __init__(
        self,
        answer: Callable[[bytes], Response],
        abandoned: Callable[[bytes], None] = lambda _head: None,
    ) -> None:
        self._answer = answer
        self._abandoned = abandoned
        self._head = bytearray()

    def write(self, data: memoryview) -> None:
        """Keep the beginning."""
        self._head += data[: max(HEAD_BYTES - len(self._head), 0)]

    def finish(self) -> Response:
        """The refusal."""
        return self._answer(bytes(self._head))

    def abandon(self) -> None:
        """Pass on that the rest will not come."""
        self._abandoned(bytes(self._head))


@dataclass(slots=True)
class Tally:
    """What came of the messages of one association."""

    kept: int = 0
    known: int = 0
    quarantined: int = 0
    own_results: int = 0
    refused: int = 0

    def count(self, fate: Fate) -> None:
        """Add an instance that met this fate."""
        if fate is Fate.KEPT:
            self.kept += 1
        elif fate is Fate.KNOWN:
            self.known += 1
        elif fate is Fate.OWN_RESULT:
            self.own_results += 1
        else:
            self.quarantined += 1


class StorageSession:
    """The C-STORE service of one association.

    Parameters
    ----------
    depot
        Shared with the other associations.
    association
        As the ledger will know it.
    """

    def __init__(self, depot: Depot, association: AssociationRecord) -> None:
        self.tally = Tally()
        self.association = association
        self.log = depot.log
        self._depot = depot
        self._refused: dict[tuple[str, str], RefusedInstance] = {}
        self._unwritten: dict[tuple[str, str], RefusedInstance] = {}
        self._has_unknown_loss = False

    @property
    def refused(self) -> tuple[RefusedInstance, ...]:
        """What was sent and not kept."""
        return tuple(self._refused.values())

    @property
    def has_unknown_loss(self) -> bool:
        """Whether something was refused of which not even the series is known."""
        return self._has_unknown_loss

    def disputes(self, series_instance_uid: str) -> bool:
        """Whether something of this series was refused that the ledger has not been told.

        What was refused of a series that cannot be told is no matter of any series yet: those
        that this association sent some of are open as long as it is, and end interrupted.
        """
        return any(series == series_instance_uid for series, _ in tuple(self._unwritten))

    def begin(self, command: Command, context: Context) -> DataSetSink:
        """Prepare for the data set of a C-STORE request."""
        if command.affected_sop_class_uid != context.abstract_syntax:
            wrong = "not the SOP class of the context"
            return self._refusal(command, context, Status.SOP_CLASS_NOT_SUPPORTED, wrong)
        if not is_valid_uid(command.affected_sop_instance_uid):
            wrong = "invalid SOP Instance UID"
            return self._refusal(command, context, Status.CANNOT_UNDERSTAND, wrong)
        if context.abstract_syntax in sop_classes.RESULTS:
            return Refusal(lambda _head: self._own_result(command))
        try:
            if self._depot.spool.free_bytes() < self._depot.reserve_free_bytes:
                return self._refusal(command, context, Status.OUT_OF_RESOURCES, Reason.DISK_FULL)
            file = self._depot.landing.open(
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                context.transfer_syntax,
            )
        except OSError:
            return self._refusal(command, context, Status.OUT_OF_RESOURCES, Reason.DISK_FULL)
        return _StoredDataSet(self, file, command, context)

    def receive(self, file: LandingFile, command: Command, context: Context) -> Response:
        """Take in a data set that is whole, and say what is answered."""
        series, more = "", None
        try:
            landed = file.settle()
            more = landed.more
            header = self._read(landed.head, context, more)
            series = header.series_instance_uid
            if wrong := _mismatch(command, header):
                return self._lost(series, command, Status.DATA_SET_DOES_NOT_MATCH, wrong)
            fate = self._depot.committer.enter(self._arrival(landed, header, context))
            return self._settled(fate, header)
        except HeaderError as error:
            series = self._series_of(file.head, context, more)
            return self._lost(series, command, Status.CANNOT_UNDERSTAND, str(error))
        except TransientError as error:
            series = series or self._series_of(file.head, context)
            return self._lost(series, command, Status.OUT_OF_RESOURCES, error.reason)
        except BridgeError as error:  # the ledger is damaged
            self.log.error("store-failed", reason=error.reason, detail=error.detail)
            return self._lost(series, command, Status.PROCESSING_FAILURE, error.reason)
        except OSError:
            series = series or self._series_of(file.head, context)
            return self._lost(series, command, Status.OUT_OF_RESOURCES, Reason.DISK_FULL)
        except Exception as error:
            self.log.fault("store-failed", error)
            return self._lost(series, command, Status.PROCESSING_FAILURE, Reason.INTERNAL_ERROR)
        finally:
            file.discard()

    def refuse(
        self, head: bytes, command: Command, context: Context, status: Status, comment: str
    ) -> Response:
        """Refuse an instance of which only the beginning is at hand."""
        return self._lost(self._series_of(head, context), command, status, comment)

    def abandoned(self, head: bytes, command: Command, context: Context) -> None:
        """The association ends inside an instance: it was sent in part, and is not kept."""
        series = self._series_of(head, context)
        self._note_loss(series, command, "aborted")
        self.log.warning(
            "instance-abandoned", peer=self.association.calling_ae_title, series=series
        )

    def _refusal(self, command: Command, context: Context, status: Status, comment: str) -> Refusal:
        return Refusal(
            lambda head: self.refuse(head, command, context, status, comment),
            lambda head: self.abandoned(head, command, context),
        )

    def _read(self, head: bytes, context: Context, more: Callable[[], bytes]) -> InstanceHeader:
        return read_header(head, context.transfer_syntax, self.association.calling_ae_title, more)

    def _series_of(
        self, head: bytes, context: Context, more: Callable[[], bytes] | None = None
    ) -> str:
        """The series that the beginning of a data set names; empty if it cannot be told."""
        series = series_uid_of(head, context.transfer_syntax)
        if series or more is None:
            return series
        try:
            return series_uid_of(more(), context.transfer_syntax)
        except OSError:
            return ""

    def _settled(self, fate: Fate, header: InstanceHeader) -> Response:
        self.tally.count(fate)
        if fate.is_quarantine and not is_valid_uid(header.series_instance_uid):
            self._has_unknown_loss = True
        status = status_of(fate)
        if fate is not Fate.KEPT:
            self.log.info(
                "instance-not-kept",
                reason=fate.reason,
                status=f"{status:04X}",
                peer=self.association.calling_ae_title,
                series=header.series_instance_uid,
                instance=header.sop_instance_uid,
            )
        return Response(status, "" if status is Status.SUCCESS else fate.value)

    def _own_result(self, command: Command) -> Response:
        try:
            is_ours = self._depot.is_own_result(command.affected_sop_instance_uid)
        except TransientError as error:
            return Response(Status.OUT_OF_RESOURCES, error.reason)
        except BridgeError as error:
            return Response(Status.PROCESSING_FAILURE, error.reason)
        if not is_ours:
            self.tally.refused += 1
            return Response(Status.SOP_CLASS_NOT_SUPPORTED, "not one of our results")
        self.tally.own_results += 1
        self.log.info("own-result", instance=command.affected_sop_instance_uid)
        return Response(Status.SUCCESS)

    def _lost(self, series: str, command: Command, status: Status, comment: str) -> Response:
        """An image was sent and is not kept: its series must not pass for complete.

        The ledger is told before the sender, since this process may end before the association
        does; if it cannot be told now it is told then.
        """
        self._note_loss(series, command, f"{status:04X}")
        unwritten = tuple(self._unwritten.values())
        is_due = unwritten and comment != Reason.LEDGER_UNAVAILABLE
        if is_due and self._depot.committer.refuse(unwritten):
            self._unwritten.clear()
        self.tally.refused += 1
        self.log.warning(
            "instance-refused",
            status=f"{status:04X}",
            comment=comment,
            peer=self.association.calling_ae_title,
            series=series,
        )
        return Response(status, comment)

    def _note_loss(self, series: str, command: Command, answer: str) -> None:
        """Keep in mind what is not kept."""
        if not is_valid_uid(series):
            self._has_unknown_loss = True
            return
        instance = command.affected_sop_instance_uid
        if not is_valid_uid(instance):
            instance = ""
        refused = RefusedInstance(series, instance, answer, self.association.calling_ae_title)
        self._refused[series, instance] = self._unwritten[series, instance] = refused

    def _arrival(self, landed: Landed, header: InstanceHeader, context: Context) -> Arrival:
        uids = (
            header.sop_class_uid,
            header.sop_instance_uid,
            header.study_instance_uid,
            header.series_instance_uid,
        )
        is_identified = bool(header.patient_id) and all(is_valid_uid(uid) for uid in uids)
        return Arrival(
            association=self.association,
            landed_path=landed.path,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=context.transfer_syntax,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            patient_key=self._depot.identity.of(header.patient_id),
            digest=landed.digest,
            data_offset_bytes=landed.data_offset_bytes,
            size_bytes=landed.size_bytes,
            frame_count=header.frame_count,
            expected_instances=header.expected_instances,
            facts=header.facts,
            is_identified=is_identified,
        )


class _StoredDataSet:
    """A ``DataSetSink`` that writes to the landing folder."""

    def __init__(
        self, session: StorageSession, file: LandingFile, command: Command, context: Context
    ) -> None:
        self._session = session
        self._file = file
        self._command = command
        self._context = context
        self._is_disk_full = False

    def write(self, data: memoryview) -> None:
        if self._is_disk_full:
            return  # the peer does not listen before it has sent it all
        try:
            self._file.write(data)
        except OSError:
            self._is_disk_full = True
            self._file.discard()

    def finish(self) -> Response:
        if self._is_disk_full:
            return self._session.refuse(
                self._file.head,
                self._command,
                self._context,
                Status.OUT_OF_RESOURCES,
                Reason.DISK_FULL,
            )
        return self._session.receive(self._file, self._command, self._context)

    def abandon(self) -> None:
        self._session.abandoned(self._file.head, self._command, self._context)
        self._file.discard()


def _mismatch(command: Command, header: InstanceHeader) -> str:
    """In what the data set is not what the command announced; empty if in nothing.

    An empty UID contradicts nothing: it is an identity that is missing.
    """
    if header.sop_class_uid not in ("", command.affected_sop_class_uid):
        return "SOP Class UID differs from the command's"
    if header.sop_instance_uid not in ("", command.affected_sop_instance_uid):
        return "SOP Instance UID differs from the command's"
    return ""
