"""QIDO-RS (PS3.18 10.6): all results of a search, from services that page in many ways.

A service may give fewer results at once than it is asked for, or more, and may not know
``limit`` or ``offset`` at all. So a search goes on behind the last result until a page is empty
or holds nothing new; and where a full page only repeats another, it begins again with a larger
limit, until that is more than there are results.

A service that caps its pages below ``limit``, does not heed ``offset`` and does not say that it
keeps results back (206, warning 299) looks like one that knows no paging and gave all it has.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from inference.reasons import Reason
from pacs_bridge.dicomweb.json_model import text
from pacs_bridge.dicomweb.media_type import DICOM_JSON
from pacs_bridge.dicomweb.peer import WebAnswer, WebPeer, WebRequest
from pacs_bridge.errors import PermanentError
from pacs_bridge.receive.header import is_valid_uid

_OK = 200
_NO_CONTENT = 204
_PARTIAL = 206
_MAX_PAGE_BYTES = 32 * 1024 * 1024
#: Objects and lists in a page: each takes many times its bytes once it is decoded.
_MAX_PAGE_NODES = 1_000_000
_MAX_ROWS = 1_000_000
_MAX_LIMIT = 1_000_000
_GROWTH = 4


class Search:
    """Searches of one service.

    Parameters
    ----------
    peer
        The service.
    page_size
        Results that are asked for at once.
    refusal
        The error for an answer of another status than success.
    run
        Runs one request, and again where that helps.
    check
        Called before each request and while waiting.
    """

    def __init__(
        self,
        peer: WebPeer,
        page_size: int,
        refusal: Callable[[WebAnswer], Exception],
        run: Callable[[Callable[[], tuple[list[dict[str, Any]], bool]]], Any],
        check: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._page_size = page_size
        self._refusal = refusal
        self._run = run
        self._check = check

    def all(
        self,
        path: str,
        query: tuple[tuple[str, str], ...],
        keys: tuple[str, ...],
        max_rows: int = _MAX_ROWS,
    ) -> Iterator[dict[str, Any]]:
        """Every result once.

        Parameters
        ----------
        path
            Of the resource.
        query
            Matching keys and fields to include.
        keys
            The attributes that tell results apart, a UID first. Those without a valid one are
            told apart by all that they say.
        max_rows
            More results than that are an error.

        Raises
        ------
        PermanentError
            ``bad-answer`` if the answer is no list of results, or cannot be had whole;
            ``too-large`` if there are too many.
        """
        seen: set[tuple[str, ...]] = set()
        offset, limit = 0, self._page_size
        while limit <= _MAX_LIMIT:
            rows, has_more = self._run(partial(self._page, path, query, offset, limit))
            new = _not_seen(rows, keys, seen)
            if len(seen) > max_rows:
                raise PermanentError(
                    Reason.TOO_LARGE, f"GET {self._peer.url}{path}: over {max_rows} results"
                )
            yield from new
            if new:
                offset += len(rows)
            elif len(rows) < limit and not has_more:
                return
            else:  # a full page of what is known: it counts to a limit, but not from an offset
                offset, limit = 0, limit * _GROWTH
        raise self._bad(path, "it cannot be had whole: neither limit nor offset are kept to")

    def _page(
        self, path: str, query: tuple[tuple[str, str], ...], offset: int, limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """Results from ``offset`` on, and whether the service says that there are more."""
        paging = (("limit", str(limit)), ("offset", str(offset)))
        request = WebRequest("GET", path, (*query, *paging), {"Accept": DICOM_JSON})
        with self._peer.asked(request, self._check) as answer:
            if answer.status == _NO_CONTENT:
                return [], False
            if answer.status not in (_OK, _PARTIAL):
                raise self._refusal(answer)
            if not answer.media_type.is_json:
                raise self._bad(path, f"not DICOM JSON but {answer.media_type.shown}")
            rows = answer.json(_MAX_PAGE_BYTES, _MAX_PAGE_NODES)
        if rows is None:
            rows = []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._bad(path, "not a list of results")
        return rows, answer.status == _PARTIAL or answer.says_that_there_is_more

    def _bad(self, path: str, what: str) -> PermanentError:
        return PermanentError(Reason.BAD_ANSWER, f"GET {self._peer.url}{path}: {what}")


def _not_seen(
    rows: Sequence[dict[str, Any]], keys: tuple[str, ...], seen: set[tuple[str, ...]]
) -> list[dict[str, Any]]:
    """The results of a page that no page before held; from now on they are seen."""
    new = []
    copies: Counter[str] = Counter()
    for row in rows:
        value = tuple(text(row, key) for key in keys)
        if not is_valid_uid(value[0]):
            content = json.dumps(row, sort_keys=True)
            copies[content] += 1  # the same page again has as many of them
            digest = hashlib.sha256(content.encode()).hexdigest()
            value = (*value, digest, str(copies[content]))
        if value not in seen:
            seen.add(value)
            new.append(row)
    return new
