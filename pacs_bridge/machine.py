"""Which machine this is, and which start of it."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MACHINE_ID: Final = Path("/etc/machine-id")
#: machine-id(5) asks that programs show a hash of their own, never the id itself.
_SALT: Final = b"pacs-bridge:"
_ID_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Machine:
    """One start of one machine; the containers on it are that machine too."""

    host: str  #: its name, in a container the container's
    machine_id: str  #: hash of machine-id(5), which outlives boots; empty where there is none
    boot_id: str  #: of its kernel, the same in every container, another after each boot

    @classmethod
    def here(cls, boot_id: str, id_file: Path = _MACHINE_ID) -> Machine:
        """What this machine is.

        Parameters
        ----------
        boot_id
            As the clock says it.
        id_file
            Holds the machine's id; it need not be there.
        """
        try:
            text = id_file.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            text = ""
        known = text not in ("", "uninitialized")
        hashed = hashlib.sha256(_SALT + text.encode()).hexdigest()[:_ID_CHARACTERS]
        return cls(socket.gethostname(), hashed if known else "", boot_id)

    def is_start_of(self, other: Machine) -> bool:
        """Whether these are surely two starts of one machine, or the same one.

        A copied virtual machine has the id of its original, a name of its own hardly ever.
        """
        if self.boot_id == other.boot_id:
            return True
        named = (self.machine_id, self.host)
        return self.machine_id != "" and named == (other.machine_id, other.host)
