"""Whose certificates are believed, and which of ours is shown; the environment has no say."""

from __future__ import annotations

import ssl
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.errors import TransientError


def tls_context(service: WebServiceConfig) -> ssl.SSLContext:
    """For connections to a service.

    Raises
    ------
    TransientError
        ``not-authorised`` if a file of the configuration cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # demands a certificate of the right host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not service.url.casefold().startswith("https:"):
        return context  # believes nobody, and is not needed
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


def _believe_the_system(context: ssl.SSLContext) -> None:
    """The places that the TLS library was built with, not those that SSL_CERT_FILE names."""
    places = ssl.get_default_verify_paths()
    file, folder = Path(places.openssl_cafile), Path(places.openssl_capath)
    if file.is_file():
        context.load_verify_locations(cafile=file)
    if folder.is_dir():
        context.load_verify_locations(capath=folder)
