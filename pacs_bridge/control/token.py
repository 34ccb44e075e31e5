"""The word that a caller must know."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError

_TOKEN_BYTES = 32
_SHORTEST = 16
_LONGEST = 1024


class Token:
    """A secret, compared in a time that tells nothing of it.

    Parameters
    ----------
    secret
        At least 16 printable ASCII characters.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    @classmethod
    def load(cls, path: Path) -> Token:
        """The token in ``path``; it is made at the first call, readable by its owner only.

        Raises
        ------
        PermanentError
            If the file cannot be read or made, or holds no token.
        """
        try:
            if not path.exists():
                _make(path)
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = error.strerror if isinstance(error, OSError) else "is not ASCII"
            raise PermanentError(Reason.INTERNAL_ERROR, f"{path}: {problem}") from error
        if not _SHORTEST <= len(text) <= _LONGEST or not text.isprintable() or " " in text:
            detail = f"{path}: a token is one word of {_SHORTEST} to {_LONGEST} characters"
            raise PermanentError(Reason.INTERNAL_ERROR, detail)
        return cls(text)

    def admits(self, authorization: str | None) -> bool:
        """Whether a header's value is ``Bearer`` and this token (RFC 6750 2.1)."""
        scheme, _, given = (authorization or "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._secret)
        return known and scheme.lower() == "bearer"


def _make(path: Path) -> None:
    """Write a token that nobody ever sees in part; temporary files are made with mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".partial") as file:
        file.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n".encode())
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process may have been faster: its token stays
            path.hardlink_to(file.name)
    flush(path.parent)
