"""What is shown to a service so that it lets us in, read from files that others may renew."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path

from inference.file_stamp import FileStamp
from inference.reasons import Reason
from pacs_bridge.config.web_service import AuthConfig
from pacs_bridge.errors import TransientError

_MAX_SECRET_BYTES = 64 * 1024


class Credentials:
    """The ``Authorization`` of requests (RFC 9110 11.6.2): Bearer, Basic, or none.

    A secret is read again when its file has changed. It is never part of an error or a log, nor
    is the name of a file that is not there, which may be a secret in the wrong place.

    Parameters
    ----------
    config
        Names the files.
    """

    def __init__(self, config: AuthConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._stamp: FileStamp | None = None
        self._secret = ""

    def headers(self) -> dict[str, str]:
        """The header as it is now; empty without credentials.

        Raises
        ------
        TransientError
            ``not-authorised`` if the file of the secret cannot be read or holds none.
        """
        config = self._config
        if config.token_file is not None:
            token = self._read("auth.token_file", config.token_file)
            if not token.isascii():  # RFC 6750 2.1
                problem = f"{config.token_file}: holds no token of ASCII"
                raise TransientError(Reason.NOT_AUTHORISED, problem)
            return {"Authorization": f"Bearer {token}"}
        if config.password_file is not None:
            text = f"{config.user}:{self._read('auth.password_file', config.password_file)}"
            encoded = base64.b64encode(text.encode()).decode("ascii")
            return {"Authorization": f"Basic {encoded}"}
        return {}

    def _read(self, key: str, path: Path) -> str:
        try:
            stamp = FileStamp.of(path.stat())
            with self._lock:
                if stamp != self._stamp:
                    self._secret = _secret(path)
                    self._stamp = stamp
                return self._secret
        except OSError as error:
            # its key alone: what is no file may be the secret itself
            problem = error.strerror or os.strerror(error.errno or 0)
            raise TransientError(Reason.NOT_AUTHORISED, f"{key}: {problem}") from None
        except ValueError:  # without its cause, which may quote the secret
            raise TransientError(
                Reason.NOT_AUTHORISED, f"{path}: holds no secret of one line of text"
            ) from None


def _secret(path: Path) -> str:
    """The one line of a file."""
    with path.open("rb") as file:
        text = file.read(_MAX_SECRET_BYTES + 1).decode("utf-8").strip()
    if not text or len(text) > _MAX_SECRET_BYTES or not text.isprintable():
        raise ValueError
    return text
