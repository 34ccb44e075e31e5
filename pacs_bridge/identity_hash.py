"""Identifiers, hidden: the same one is always the same word, and nobody can turn it back."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError, disk_reason

KEY_NAME = "identity.key"
_KEY_BYTES = 32
_WORD_CHARACTERS = 16
#: Dotted numbers of six components and more, or under 2.25: no IP address, no version, and none
#: of the UIDs that the Standard itself defines.
_UID = re.compile(r"(?<![\w.])(?!1\.2\.840\.10008\.)(?:\d+(?:\.\d+){5,}|2\.25\.\d+)(?!\w)")


def _make_key(path: Path) -> None:
    """Write a key that nobody ever sees in part."""
    # Not named by the process: in a container each start has the number of the one that died.
    with NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".partial") as file:
        file.write(os.urandom(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process may have been faster: its key stays
            path.hardlink_to(file.name)
    flush(path.parent)


def _translated(error: OSError, path: Path) -> PermanentError | TransientError:
    """A key that another user made is the first file that a process meets of them."""
    detail = f"{path}, as user id {os.geteuid()}: {error.strerror}"
    if isinstance(error, PermissionError):
        return PermanentError(Reason.DATA_FOLDER_DENIED, detail)
    return TransientError(disk_reason(error), detail)


class IdentityHash:
    """HMAC-SHA-256 (RFC 2104) of identifiers, with a key of this installation.

    Without the key a Patient ID cannot be found by hashing all that there may be.

    Parameters
    ----------
    key
        Secret bytes.
    later
        A file that the key is taken from in their place, once it is there.
    """

    def __init__(self, key: bytes, later: Path | None = None) -> None:
        self._key = key
        self._later = later

    @classmethod
    def load(cls, folder: Path) -> IdentityHash:
        """With the key in ``folder``; it is made at the first call, readable by its owner only.

        Raises
        ------
        PermanentError
            ``data-folder-denied`` if this user may not read the key, or make it.
        TransientError
            ``disk-full`` or ``internal-error`` if it cannot be read or made now.
        """
        path = folder / KEY_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _make_key(path)
            return cls(path.read_bytes())
        except OSError as error:
            raise _translated(error, path) from error

    @classmethod
    def known(cls, folder: Path) -> IdentityHash:
        """With the key in ``folder``, of which nothing is made here.

        As long as there is none, as where a bridge's folder is not mounted yet, the key is one
        of this object alone. Raises as ``load``.
        """
        path = folder / KEY_NAME
        try:
            return cls(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return cls(os.urandom(_KEY_BYTES), later=path)
        except OSError as error:
            raise _translated(error, path) from error

    def of(self, identifier: str) -> str:
        """32 hexadecimal digits."""
        if (later := self._later) is not None:
            with suppress(OSError):
                self._key, self._later = later.read_bytes(), None
        return hmac.new(self._key, identifier.encode(), hashlib.sha256).hexdigest()[:32]

    def word(self, identifier: str) -> str:
        """16 hexadecimal digits: for logs and lists; empty for an empty identifier."""
        return self.of(identifier)[:_WORD_CHARACTERS] if identifier else ""

    def hide_uids(self, text: str) -> str:
        """``text`` with a word in the place of every UID."""
        return _UID.sub(lambda match: f"uid:{self.word(match.group())}", text)
