"""What the DICOM libraries are told, once in every process, and nowhere else."""

from __future__ import annotations

import logging

import pydicom.config
from pynetdicom import _config

#: Above every level: these libraries quote values and identifiers of patients in their messages.
_SILENT = logging.CRITICAL + 1


def apply_library_settings() -> None:
    """Keep patient data out of the libraries' logs, and files out of their hands.

    pynetdicom keeps its settings in a module; this is the only place that writes to it. UIDs of
    peers are checked by the listener itself, where a wrong one is answered with its status.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    _config.STORE_RECV_CHUNKED_DATASET = False
    _config.STORE_SEND_CHUNKED_DATASET = True
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for name in ("pydicom", "pynetdicom"):
        library = logging.getLogger(name)
        library.setLevel(_SILENT)
        library.propagate = False
        if not library.handlers:
            library.addHandler(logging.NullHandler())
