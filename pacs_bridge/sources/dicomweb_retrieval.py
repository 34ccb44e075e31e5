"""WADO-RS (PS3.18 10.4): instances of one answer, part after part, onto the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inference.reasons import Reason
from pacs_bridge.dicomweb.media_type import DICOM, MULTIPART_RELATED
from pacs_bridge.dicomweb.multipart import MultipartError, TruncatedError, read_parts
from pacs_bridge.dicomweb.peer import WebAnswer, WebPeer, WebPeerError, WebRequest
from pacs_bridge.errors import PermanentError
from pacs_bridge.sources.dicomweb_status import refusal
from pacs_bridge.sources.received_instance import CutInstanceError
from pacs_bridge.sources.received_series import ReceivedSeries

#: As stored (PS3.18 8.7.3.5.2), and for services that do not know that: as they like.
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AS_THEY_LIKE = 'multipart/related; type="application/dicom"'
_SUCCESS = (200, 206)
_NOT_ACCEPTABLE = (400, 406, 415)
_NO_CONTENT = 204
_PARTIAL = 206


class Retrieval:
    """Retrieves from one service into one series.

    Parameters
    ----------
    peer
        The service.
    series
        Takes the instances; whether they are all is not decided here.
    check
        Called between pieces.
    """

    def __init__(self, peer: WebPeer, series: ReceivedSeries, check: Callable[[], None]) -> None:
        self._peer = peer
        self._series = series
        self._check = check

    def take(self, path: str) -> None:
        """Take all instances of the answer for one resource; those before an error are kept.

        Raises
        ------
        WebPeerError
            ``source-unreachable`` if the service cannot be reached, or the answer breaks off.
        CutInstanceError
            ``source-incomplete`` if an instance in it breaks off.
        TransientError, PermanentError
            As ``refusal`` and ``ReceivedSeries.take``; ``bad-answer`` if the answer is not made
            of DICOM files.
        """
        if not self._has_taken(path, AS_STORED):
            self._has_taken(path, _AS_THEY_LIKE)

    def _has_taken(self, path: str, accept: str) -> bool:
        """Take an answer; False if the service cannot give this kind of one."""
        request = WebRequest("GET", path, headers={"Accept": accept})
        with self._peer.asked(request, self._check) as answer:
            if answer.status in _NOT_ACCEPTABLE and accept == AS_STORED:
                return False
            if answer.status == _NO_CONTENT:
                return True
            if answer.status not in _SUCCESS:
                raise refusal(answer, self._peer.has_renewable_credentials)
            is_range = answer.status == _PARTIAL and answer.media_type.name == DICOM
            if is_range:  # RFC 9110 15.3.7: some bytes of an instance
                raise PermanentError(Reason.BAD_ANSWER, f"{answer.where}: a part of an instance")
            if answer.media_type.name == DICOM and answer.has_known_end:
                self._series.check_size(answer.content_length_bytes)
                self._series.take(self._watched(answer.chunks()))
            elif answer.media_type.name == MULTIPART_RELATED:
                self._take_parts(answer)
            else:
                raise PermanentError(
                    Reason.BAD_ANSWER, f"{answer.where}: a body of {answer.media_type.shown}"
                )
        return True

    def _take_parts(self, answer: WebAnswer) -> None:
        cut: CutInstanceError | None = None
        try:
            for part in read_parts(answer.chunks(), answer.media_type.boundary):
                self._check()
                self._series.check_size(part.content_length_bytes)
                try:
                    self._series.take(self._watched(part.body))
                except CutInstanceError as error:
                    cut = error  # those behind it are whole
        except TruncatedError as error:
            raise WebPeerError(Reason.SOURCE_UNREACHABLE, f"{answer.where}: {error}") from error
        except MultipartError as error:
            raise PermanentError(Reason.BAD_ANSWER, f"{answer.where}: {error}") from error
        if cut is not None:
            raise cut

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._check()
            yield piece
