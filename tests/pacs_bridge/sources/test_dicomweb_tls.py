"""DICOMweb over TLS: whose certificate is believed, and ours.

The certificates were made for these tests, and the key of their authority was thrown away.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive

CERTIFICATES = Path(__file__).parent / "certificates"


def _server(name: str, asks_for_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    if asks_for_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CERTIFICATES / "ca.pem")
    return context


@pytest.fixture
def archive_behind(
    serve_web: Callable[..., Any], make_original: Callable[..., Any]
) -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(context: ssl.SSLContext, **tls: str) -> DicomwebArchive:
        service = serve_web(make_original(2).paths, context)
        files = {key: str(CERTIFICATES / name) for key, name in tls.items()}
        table = {"name": "pacs", "kind": "dicomweb", "url": service.url, "tls": files}
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table))
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
