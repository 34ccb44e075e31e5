"""The C-FIND SCU in the Study Root model (PS3.4 C.4.1, C.6.2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName
from pynetdicom import build_context, evt

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.dicomweb.json_model import MOST_OF_ANYTHING, sound
from pacs_bridge.errors import BridgeError, PermanentError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dimse_line import ArchiveLine, Proposal
from pacs_bridge.sources.dimse_status import PENDING, SUCCESS, refusal

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MESSAGE_ID = 1
_MAX_UNREAD_BYTES = 64 * 1024 * 1024
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"


class FindScu:
    """Searches one archive, over one association for as long as that holds. For one thread.

    Parameters
    ----------
    config
        Of the source.
    calling_ae_title
        Ours.
    retry
        For associations that are dropped.
    check
        Called while waiting; what it raises ends a search.
    """

    def __init__(
        self,
        config: DimseSourceConfig,
        calling_ae_title: str,
        retry: BriefRetry,
        check: Callable[[], None],
    ) -> None:
        self._config = config
        self._retry = retry
        self._check = check
        self._line = ArchiveLine(config, calling_ae_title)
        self._unread_bytes = 0
        self._is_flooded = False

    def find(self, level: str, keys: dict[str, str]) -> tuple[Dataset, ...]:
        """All matches of one request.

        Parameters
        ----------
        level
            STUDY, SERIES or IMAGE.
        keys
            By keyword: what must match, or empty for what is to be told.

        Raises
        ------
        TransientError
            ``source-unreachable`` if the archive cannot be reached, breaks off or is
            overloaded, ``source-refused`` if it rejects the association.
        PermanentError
            ``source-refused``, ``not-authorised`` as its status says; ``too-large`` if there are
            more matches than are allowed; ``bad-answer`` if one cannot be read.
        """
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        self._check()
        return self._retry.run(lambda: self._matches(identifier), self._check)

    def close(self) -> None:
        """End the association; another search begins a new one."""
        self._line.close()

    def _matches(self, identifier: Dataset) -> tuple[Dataset, ...]:
        try:
            if not self._line.is_open:
                handlers = ((evt.EVT_DATA_RECV, self._count),)
                self._line.open(replace(_PROPOSAL, handlers=handlers), self._check)
            self._unread_bytes = 0
            self._is_flooded = False
            return self._one_request(identifier)
        except BridgeError as error:
            self._line.abort()
            if self._is_flooded:
                said = f"{self._line.name}: over {_MAX_UNREAD_BYTES} bytes without a match read"
                raise PermanentError(Reason.TOO_LARGE, said) from error
            raise
        except BaseException:
            self._line.abort()
            raise

    def _count(self, event: Any) -> None:
        """What comes is held in memory until it is read: without end it must not come."""
        self._unread_bytes += len(event.data)
        if self._unread_bytes > _MAX_UNREAD_BYTES:
            self._is_flooded = True
            self._line.cut()

    def _one_request(self, identifier: Dataset) -> tuple[Dataset, ...]:
        found: list[Dataset] = []
        limit = self._config.max_results
        with self._line.request(
            lambda association: association.send_c_find(
                identifier, STUDY_ROOT_FIND, msg_id=_MESSAGE_ID
            ),
            self._check,
        ) as responses:
            for status, _, match in responses:
                self._unread_bytes = 0
                if status in PENDING:
                    if match is None:
                        raise PermanentError(
                            Reason.BAD_ANSWER, f"{self._line.name}: a match that cannot be read"
                        )
                    found.append(match)
                    if len(found) > limit:
                        self._line.cancel(_MESSAGE_ID, STUDY_ROOT_FIND)
                        raise PermanentError(
                            Reason.TOO_LARGE,
                            f"{self._line.name}: over {limit} matches; search fewer days at once",
                        )
                elif status != SUCCESS:
                    raise refusal(status, f"{self._line.name}: C-FIND")
        return tuple(found)


_PROPOSAL = Proposal(
    contexts=(build_context(STUDY_ROOT_FIND, [_EXPLICIT_LITTLE, _IMPLICIT_LITTLE]),),
    needed=STUDY_ROOT_FIND,
)


def text_of(match: Dataset, keyword: str) -> str:
    """The first value of an attribute as text; empty without one, or with one beyond reading."""
    with suppress(Exception):  # a value is decoded when it is asked for, whatever it holds
        value = match.get(keyword)
        is_one = value is None or isinstance(value, str | PersonName)
        if not is_one and hasattr(value, "__iter__"):
            value = next(iter(value), None)
        return "" if value is None else sound(str(value))
    return ""


def texts_of(match: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of an attribute as text."""
    with suppress(Exception):
        value = match.get(keyword)
        if value is None or value == "":
            return ()
        values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
        return tuple(sound(str(one)) for one in values)
    return ()


def count_of(match: Dataset, keyword: str) -> int | None:
    """A number; None without one."""
    try:
        number = int(text_of(match, keyword))
    except ValueError:
        return None
    return number if 0 <= number <= MOST_OF_ANYTHING else None
