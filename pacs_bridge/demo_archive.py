"""The demo's archive: a small Storage SCP that keeps Segmentations in a folder.

It stands for the PACS in ``pacs-bridge demo`` and shares no code with the sender: what it
keeps are the bytes that came over the association.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

from pynetdicom import AE, evt

AE_TITLE = "DEMOARCHIVE"
_VERIFICATION = "1.2.840.10008.1.1"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SYNTAXES = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_SUCCESS = 0x0000


def run_archive(folder: Path, announce: Callable[[int], None], leave: threading.Event) -> None:
    """Accept Segmentations on a free loopback port until ``leave`` is set.

    Parameters
    ----------
    folder
        Gets one file an object, ``00001.dcm`` and up, each whole or not at all.
    announce
        Told the port.
    leave
        Set to end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count(1)

    def store(event: evt.Event) -> int:
        path = folder / f"{next(numbers):05d}.dcm"  # never named by anything that was received
        partial = path.with_suffix(".partial")
        partial.write_bytes(event.encoded_dataset())
        partial.replace(path)
        return _SUCCESS

    ae = AE(ae_title=AE_TITLE)
    ae.add_supported_context(_VERIFICATION)
    for sop_class in _SEGMENTATIONS:
        ae.add_supported_context(sop_class, list(_SYNTAXES))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    announce(server.server_address[1])
    while not leave.wait(1.0):
        pass
    server.shutdown()
