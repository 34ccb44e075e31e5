"""Whose certificates are believed, and which of ours is shown; the environment has no say."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from inference.file_stamp import FileStamp
from inference.reasons import Reason
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.errors import TransientError

#: Of each file that a context is made of; None where it cannot be looked at.
TlsStamp: TypeAlias = tuple[FileStamp | None, ...]


def tls_context(service: WebServiceConfig) -> ssl.SSLContext:
    """For connections to a service.

    Raises
    ------
    TransientError
        ``not-authorised`` if a file of the configuration cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # demands a certificate of the right host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not _is_needed(service):
        return context  # believes nobody
    config = service.tls
    path = config.ca_file
    try:
        if path is None:
            _believe_the_system(context)
        else:
            context.load_verify_locations(path)
        path = config.certificate_file
        if path is not None:
            # without a password callback OpenSSL would ask for one on the terminal
            context.load_cert_chain(path, config.key_file, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:  # an SSLError is an OSError
        problem = error.strerror or type(error).__name__
        raise TransientError(Reason.NOT_AUTHORISED, f"{path}: {problem}") from error
    return context


def tls_stamp(service: WebServiceConfig) -> TlsStamp:
    """Differs from an earlier one when ``tls_context`` would give something else."""
    if not _is_needed(service):
        return ()
    config = service.tls
    authorities = config.ca_file or _places_of_the_system()[0]
    files = (authorities, config.certificate_file, config.key_file)
    return tuple(_stamp(file) for file in files if file is not None)


def _is_needed(service: WebServiceConfig) -> bool:
    return service.url.casefold().startswith("https:")


def _stamp(file: Path) -> FileStamp | None:
    try:
        return FileStamp.of(file.stat())
    except OSError:
        return None


def _places_of_the_system() -> tuple[Path, Path]:
    """A file and a folder: those the TLS library was built with, not what SSL_CERT_FILE names."""
    places = ssl.get_default_verify_paths()
    return Path(places.openssl_cafile), Path(places.openssl_capath)


def _believe_the_system(context: ssl.SSLContext) -> None:
    file, folder = _places_of_the_system()
    if file.is_file():
        context.load_verify_locations(cafile=file)
    if folder.is_dir():
        context.load_verify_locations(capath=folder)
