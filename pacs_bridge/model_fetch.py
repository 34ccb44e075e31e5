"""Downloads the published weights: resumed after a break, checked before they are used.

Addresses are facts of the published bundle (MONAI model zoo, wholeBody_ct_segmentation 0.2.5,
``large_files.yml``), kept in ``data/published_models.csv``; checksums are those that the import
knows.
Proxies come from the environment (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).
"""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import httpx

from inference.model_import import PUBLISHED_WEIGHTS
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError

#: More than any published weights of this network; a server cannot fill the disk.
MAX_MODEL_BYTES = 2 * 1024**3
_OK = 200
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One file of published weights."""

    name: str  #: what it is called in the model store
    file: str
    md5: str
    spacing_mm: float
    url: str

    def at(self, mirror: str) -> PublishedModel:
        """The same file, with the same checksum, at another address."""
        return replace(self, url=f"{mirror.rstrip('/')}/{self.file}")


@dataclass(frozen=True, slots=True)
class FetchPatience:
    """How often a broken download is taken up again."""

    attempts: int = 6
    first_wait_s: float = 1.0  #: doubled after every attempt without a byte


def published_models() -> tuple[PublishedModel, ...]:
    """The published weights, 1.5 mm first."""
    table = (files("pacs_bridge") / "data" / "published_models.csv").read_text(encoding="utf-8")
    urls = {row["file"]: row["url"] for row in csv.DictReader(table.splitlines())}
    return tuple(
        PublishedModel(
            name=weights.model_name,
            file=weights.file_name,
            md5=weights.md5,
            spacing_mm=weights.spacing_mm,
            url=urls[weights.file_name],
        )
        for weights in PUBLISHED_WEIGHTS
    )


def http_client() -> httpx.Client:
    """A client with time limits that a stalled server cannot outlast.

    Raises
    ------
    PermanentError
        ``fetch-failed`` if a proxy that the environment names cannot be used: its address is
        wrong, or it speaks SOCKS, for which httpx needs another package.
    """
    try:
        return httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(30.0, connect=15.0),
            headers={"Accept-Encoding": "identity"},  # a range counts bytes of the file itself
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        detail = f"the proxy that the environment names: {error}"
        raise PermanentError(Reason.FETCH_FAILED, detail) from error


def is_http_address(text: str) -> bool:
    """Whether ``text`` is an absolute http or https URL."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)


class ModelFetcher:
    """Downloads one file at a time.

    Parameters
    ----------
    client
        Carries proxies, time limits and certificates.
    patience
        How often to take up a broken download again.
    sleep
        Waits so many seconds; passed in by tests.
    """

    def __init__(
        self,
        client: httpx.Client,
        patience: FetchPatience = FetchPatience(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._patience = patience
        self._sleep = sleep

    def fetch(
        self,
        model: PublishedModel,
        folder: Path,
        progress: Callable[[int, int | None], None] = lambda _done, _total: None,
    ) -> Path:
        """Download ``model`` into ``folder``; a file that is there and right is left as it is.

        Bytes of an earlier, broken run are kept in ``<file>.partial`` and continued
        (RFC 9110 14.2). ``progress`` is told bytes done and, where the server says, in all.

        Raises
        ------
        PermanentError
            ``model-checksum`` if the whole file is not the published one, also from its first
            byte; ``fetch-failed`` if the server refuses, the file is beyond the limit, or the
            address is none or leads in a circle.
        TransientError
            ``fetch-failed`` if the connection broke more often than patience allows; what
            arrived is kept for the next run.
        """
        target = folder / model.file
        if target.is_file() and _md5(target) == model.md5:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{model.file}.partial"
        resumed = partial.is_file()
        self._complete(model.url, partial, progress)
        found = _md5(partial)
        if found != model.md5 and resumed:  # the old bytes may be of another file
            partial.unlink()
            self._complete(model.url, partial, progress)
            found = _md5(partial)
        if found != model.md5:
            partial.unlink()
            raise PermanentError(
                Reason.MODEL_CHECKSUM, f"{model.url}: md5 {found}, published {model.md5}"
            )
        partial.replace(target)
        return target

    def _complete(
        self, url: str, partial: Path, progress: Callable[[int, int | None], None]
    ) -> None:
        wait_s = self._patience.first_wait_s
        failures, longest = 0, _size(partial)
        while True:
            try:
                self._continue(url, partial, progress)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise PermanentError(Reason.FETCH_FAILED, f"{url}: {error}") from error
            except (httpx.TransportError, TransientError) as error:
                if _size(partial) > longest:  # it gets on, however often it breaks
                    longest = _size(partial)
                    failures, wait_s = 0, self._patience.first_wait_s
                failures += 1
                if failures >= self._patience.attempts:
                    raise TransientError(
                        Reason.FETCH_FAILED, f"{url}: {error or type(error).__name__}"
                    ) from error
                self._sleep(wait_s)
                wait_s *= 2
            else:
                return

    def _continue(
        self, url: str, partial: Path, progress: Callable[[int, int | None], None]
    ) -> None:
        """One request: append what is missing, or begin anew where the server ignores ranges."""
        done = _size(partial)
        headers = {"Range": f"bytes={done}-"} if done else {}
        with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE and done:
                return  # nothing is missing; the checksum tells whether it is the right file
            if response.status_code >= _SERVER_ERROR:
                raise TransientError(Reason.FETCH_FAILED, f"HTTP {response.status_code}")
            if response.status_code not in (_OK, _PARTIAL):
                raise PermanentError(Reason.FETCH_FAILED, f"{url}: HTTP {response.status_code}")
            if response.status_code == _OK:
                done = 0  # the server ignores ranges
            elif _range_start(response) != done:
                partial.unlink(missing_ok=True)
                raise TransientError(Reason.FETCH_FAILED, "the server sent another range")
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdigit() else None
            with partial.open("ab" if done else "wb") as file:
                for chunk in response.iter_raw():  # as it comes: a chunk size would hold bytes back
                    file.write(chunk)
                    done += len(chunk)
                    if done > MAX_MODEL_BYTES:
                        raise PermanentError(
                            Reason.FETCH_FAILED, f"{url}: more than {MAX_MODEL_BYTES} bytes"
                        )
                    progress(done, total)
                file.flush()
                os.fsync(file.fileno())


def _range_start(response: httpx.Response) -> int:
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else -1


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _md5(path: Path) -> str:
    with path.open("rb") as file:  # md5 is what was published; the store keeps sha256
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
