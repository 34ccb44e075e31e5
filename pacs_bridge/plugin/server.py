"""Orthanc, as its plugins see it: its REST API without HTTP, and its log.

Until version 4.3 of the Python plugin, and later unless ``AllowThreads`` is set, every call here
holds the interpreter's lock until Orthanc has answered. So each call is one that answers at once:
nothing waits for a network or for pixels.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

#: Orthanc's codes for what is not there: InexistentItem and UnknownResource.
_NOT_THERE = (5, 17)


class OrthancApi(Protocol):
    """What is used of the module ``orthanc``, which exists inside Orthanc only."""

    def RestApiGet(self, uri: str) -> bytes:
        """GET, by Orthanc itself."""
        ...

    def RestApiPost(self, uri: str, body: bytes) -> bytes:
        """POST, by Orthanc itself."""
        ...

    def GetConfiguration(self) -> str:
        """The configuration file, as JSON."""
        ...

    def LogInfo(self, message: str) -> None:
        """Write to Orthanc's log."""
        ...

    def LogWarning(self, message: str) -> None:
        """Write to Orthanc's log."""
        ...

    def LogError(self, message: str) -> None:
        """Write to Orthanc's log."""
        ...


class ServerError(Exception):
    """Orthanc did not do what was asked.

    Parameters
    ----------
    uri
        What was asked.
    code
        Orthanc's error code, or -1.
    """

    def __init__(self, uri: str, code: int) -> None:
        super().__init__(f"{uri}: Orthanc error {code}")
        self.code = code


class LeavingError(Exception):
    """Orthanc ends: nothing more is asked of it, whatever was under way."""


class OrthancServer:
    """Orthanc's REST API, and its log.

    Every method that asks something raises ``LeavingError`` once Orthanc ends: long walks through
    changes and instances consist of such calls, and what is under way is lost no more than when
    Orthanc is killed.

    Parameters
    ----------
    api
        The module ``orthanc``.
    """

    def __init__(self, api: OrthancApi) -> None:
        self._api = api
        self._error: type[Exception] = getattr(api, "OrthancException", ValueError)
        self._is_left = False

    def leave(self) -> None:
        """Ask nothing more."""
        self._is_left = True

    def get(self, uri: str) -> Any:
        """What Orthanc has there.

        Raises
        ------
        ServerError
            If it has nothing there, or cannot say.
        """
        self._check()
        try:
            return json.loads(self._api.RestApiGet(uri).decode("utf-8", "replace"))
        except self._error as error:
            raise ServerError(uri, _code(error)) from error
        except ValueError as error:
            raise ServerError(uri, -1) from error

    def find(self, uri: str) -> Any:
        """What Orthanc has there, or None if it has nothing.

        Raises
        ------
        ServerError
            If it cannot say.
        """
        try:
            return self.get(uri)
        except ServerError as error:
            if error.code in _NOT_THERE:
                return None
            raise

    def text(self, uri: str) -> str:
        """A plain value, such as one of metadata; empty if it has none."""
        self._check()
        try:
            return self._api.RestApiGet(uri).decode("utf-8", "replace")
        except self._error as error:
            if _code(error) in _NOT_THERE:
                return ""
            raise ServerError(uri, _code(error)) from error

    def post(self, uri: str, body: object) -> Any:
        """Have Orthanc do something.

        Raises
        ------
        ServerError
            If it refuses.
        """
        self._check()
        try:
            return json.loads(self._api.RestApiPost(uri, json.dumps(body).encode()))
        except self._error as error:
            raise ServerError(uri, _code(error)) from error

    def _check(self) -> None:
        if self._is_left:
            raise LeavingError

    def info(self, message: str) -> None:
        """Note what happened."""
        self._api.LogInfo(f"PACS Bridge: {message}")

    def warning(self, message: str) -> None:
        """Note what somebody should look at."""
        self._api.LogWarning(f"PACS Bridge: {message}")

    def error(self, message: str) -> None:
        """Note what somebody must look at."""
        self._api.LogError(f"PACS Bridge: {message}")


def _code(error: Exception) -> int:
    code = error.args[0] if error.args else -1
    return code if isinstance(code, int) else -1
