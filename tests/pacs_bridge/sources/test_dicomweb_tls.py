"""DICOMweb over TLS: whose certificate is believed, and ours.

The certificates were made for these tests, and the key of their authority was thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.dicomweb.fault_text import is_tls_refusal
from pacs_bridge.dicomweb.peer import WebPeer, WebPeerError, WebRequest
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive

CERTIFICATES = Path(__file__).parent / "certificates"
LOST = Reason.SOURCE_UNREACHABLE


def _server(name: str, asks_for_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    if asks_for_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CERTIFICATES / "ca.pem")
    return context


def _config(url: str, tls: dict[str, str]) -> DicomwebSourceConfig:
    files = {key: str(CERTIFICATES / name) for key, name in tls.items()}
    table = {"name": "pacs", "kind": "dicomweb", "url": url, "tls": files}
    return DicomwebSourceConfig.model_validate_json(json.dumps(table))


@pytest.fixture
def archive_behind(
    serve_web: Callable[..., Any], make_original: Callable[..., Any]
) -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(context: ssl.SSLContext, **tls: str) -> DicomwebArchive:
        service = serve_web(make_original(2).paths, context)
        config = _config(service.url, tls)
        opened.append(DicomwebArchive(config, BriefRetry(lambda seconds: None)))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


def test_a_certificate_of_the_authority_that_is_named_is_believed(
    archive_behind: Callable[..., DicomwebArchive],
) -> None:
    assert "QIDO-RS answers" in archive_behind(_server("server"), ca_file="ca.pem").ask()


@pytest.mark.parametrize(
    ("name", "tls", "said"),
    [
        ("expired", {"ca_file": "ca.pem"}, "expired"),
        ("other-host", {"ca_file": "ca.pem"}, "mismatch"),
        ("server", {}, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_cannot_be_believed_ends_the_connection(
    archive_behind: Callable[..., DicomwebArchive], name: str, tls: dict[str, str], said: str
) -> None:
    with pytest.raises(TransientError) as refused:
        archive_behind(_server(name), **tls).ask()
    assert refused.value.reason is Reason.SOURCE_UNREACHABLE
    assert said in refused.value.detail


def test_our_certificate_is_shown_where_it_is_asked_for(
    archive_behind: Callable[..., DicomwebArchive],
) -> None:
    context = _server("server", asks_for_client=True)
    shown = {"ca_file": "ca.pem", "certificate_file": "client.pem"}
    assert "QIDO-RS answers" in archive_behind(context, **shown).ask()
    with pytest.raises(TransientError) as refused:
        archive_behind(_server("server", asks_for_client=True), ca_file="ca.pem").ask()
    assert refused.value.reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [("certificate_file", "expired.pem", "client.pem"), ("ca_file", "client.pem", "ca.pem")],
)
def test_a_renewed_file_is_read_by_whoever_runs(
    archive_behind: Callable[..., DicomwebArchive],
    tmp_path: Path,
    key: str,
    before: str,
    after: str,
) -> None:
    file = tmp_path / "renewed.pem"
    shutil.copy(CERTIFICATES / before, file)
    tls = {"ca_file": "ca.pem", "certificate_file": "client.pem"} | {key: str(file)}
    archive = archive_behind(_server("server", asks_for_client=True), **tls)
    with pytest.raises(TransientError) as refused:
        archive.ask()
    assert refused.value.reason is Reason.SOURCE_UNREACHABLE
    shutil.copy(CERTIFICATES / after, file)
    assert "QIDO-RS answers" in archive.ask()


def test_a_certificate_that_is_renewed_by_halves_is_read_when_it_is_whole(
    archive_behind: Callable[..., DicomwebArchive], tmp_path: Path
) -> None:
    file = tmp_path / "renewed.pem"
    shutil.copy(CERTIFICATES / "client.pem", file)
    tls = {"ca_file": "ca.pem", "certificate_file": str(file)}
    archive = archive_behind(_server("server", asks_for_client=True), **tls)
    archive.ask()
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(TransientError) as unreadable:
        archive.ask()
    assert unreadable.value.reason is Reason.NOT_AUTHORISED
    shutil.copy(CERTIFICATES / "client.pem", file)
    assert "QIDO-RS answers" in archive.ask()


def test_a_request_that_is_under_way_outlives_the_renewal_of_a_certificate(
    serve_web: Callable[..., Any], make_original: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "renewed.pem"
    shutil.copy(CERTIFICATES / "client.pem", file)
    service = serve_web(make_original(2).paths, _server("server", asks_for_client=True))
    peer = WebPeer(_config(service.url, {"ca_file": "ca.pem", "certificate_file": str(file)}), LOST)
    request = WebRequest("GET", "/series", (("limit", "1"),))
    with peer.asked(request) as first:
        os.utime(file, ns=(1, 1))
        with peer.asked(request) as second:
            assert len(second.json(1 << 20)) == 1
        assert len(first.json(1 << 20)) == 1
    peer.close()


@pytest.mark.parametrize("tls", [{}, {"certificate_file": "client.pem"}])
@pytest.mark.parametrize(
    ("status", "page", "reason"),
    [
        (403, b"", Reason.NOT_AUTHORISED),
        (400, b"<title>400 The SSL certificate error</title>", Reason.NOT_AUTHORISED),
        (400, b"<title>400 Bad Request</title>", None),
    ],
)
def test_what_is_said_of_our_certificate_passes_when_it_is_renewed(
    serve_web: Callable[..., Any],
    make_original: Callable[..., Any],
    tls: dict[str, str],
    status: int,
    page: bytes,
    reason: Reason | None,
) -> None:
    service = serve_web(make_original(2).paths, _server("server"))
    service.faults = [lambda exchange: exchange.say(status, {"Content-Type": "text/html"}, page)]
    config = _config(service.url, {"ca_file": "ca.pem"} | tls)
    archive = DicomwebArchive(config, BriefRetry(lambda seconds: None))
    with pytest.raises(BridgeError) as refused:
        archive.ask()
    if tls and reason is not None:
        assert isinstance(refused.value, TransientError)
        assert refused.value.reason is reason
        assert "QIDO-RS answers" in archive.ask()
    else:
        assert isinstance(refused.value, PermanentError)
    archive.close()


def test_a_certificate_that_is_refused_is_no_fault_of_the_request(
    serve_web: Callable[..., Any],
) -> None:
    context = _server("server", asks_for_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the handshake ends before the request
    peer = WebPeer(_config(serve_web([], context).url, {"ca_file": "ca.pem"}), LOST)
    with pytest.raises(WebPeerError) as refused, peer.asked(WebRequest("GET", "/series")):
        pass
    assert not refused.value.was_sent
    peer.close()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("TLSV13_ALERT_CERTIFICATE_REQUIRED", True), ("UNEXPECTED_EOF_WHILE_READING", False)],
)
def test_an_alert_is_told_from_a_line_that_broke(reason: str, expected: bool) -> None:
    cause = ssl.SSLError(1, "as the TLS library says it")
    cause.reason = reason
    error = httpx.ReadError("")
    error.__cause__ = cause
    assert is_tls_refusal(error) is expected


@pytest.mark.parametrize("name", ["gone.pem", "../conftest.py"])
@pytest.mark.parametrize("key", ["ca_file", "certificate_file"])
def test_a_file_without_a_certificate_is_said_by_its_name(
    archive_behind: Callable[..., DicomwebArchive], key: str, name: str
) -> None:
    with pytest.raises(TransientError) as unreadable:
        archive_behind(_server("server"), **{key: name}).ask()
    assert unreadable.value.reason is Reason.NOT_AUTHORISED
    assert Path(name).name in unreadable.value.detail


def test_the_environment_names_no_certificates_and_no_file_of_keys(
    archive_behind: Callable[..., DicomwebArchive],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with pytest.raises(TransientError) as refused:
        archive_behind(_server("server")).ask()
    assert "certificate" in refused.value.detail
    archive_behind(_server("server"), ca_file="ca.pem").ask()
    assert not (tmp_path / "keys").exists()
