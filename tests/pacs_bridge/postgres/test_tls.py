"""TLS by libpq's parameters: the server is known by its certificate, and the worker by its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_peer import PostgresPeer
from queue_bench import LEASE_S, OWNER, QUEUE_NAME, request_of

from pacs_bridge.errors import TransientError
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.tables import prepare


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, name: str, subject: str, *extra: str) -> None:
    """``name.pem`` and ``name.key``; signed by ``ca`` where that is there."""
    signer = ("-CA", "ca.pem", "-CAkey", "ca.key") if (folder / "ca.pem").exists() else ()
    openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *signer, *extra,
    )  # fmt: skip
    (folder / f"{name}.key").chmod(0o600)


@pytest.fixture
def secured(tmp_path: Path, postgres: PostgresPeer) -> Iterator[tuple[str, Path]]:
    """A database that lets the role ``worker`` in by certificate alone, and the certificates."""
    certificate(tmp_path, "ca", "authority")
    certificate(tmp_path, "server", "localhost", "-addext", "subjectAltName=DNS:localhost")
    certificate(tmp_path, "worker", "worker")
    url = postgres.new_database()
    data = postgres.folder / "data"
    before = (data / "pg_hba.conf").read_text()
    for name in ("server.pem", "server.key", "ca.pem"):
        shutil.copy(tmp_path / name, data / name)
        shutil.chown(data / name, data.owner(), data.group())
    (data / "server.key").chmod(0o600)
    rules = "hostssl all worker all cert\nhost all worker all reject\n"
    (data / "pg_hba.conf").write_text(rules + before)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE worker LOGIN SUPERUSER")
        for key, value in (
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
            ("ssl", "on"),
        ):
            connection.execute(f"ALTER SYSTEM SET {key} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")
    yield url.replace("bridge@127.0.0.1", "worker@localhost"), tmp_path
    (data / "pg_hba.conf").write_text(before)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl = 'off'")
        connection.execute("SELECT pg_reload_conf()")


def test_a_worker_is_known_by_its_certificate_and_knows_its_server(secured, wait_for):
    url, folder = secured
    whole = (
        f"{url}?sslmode=verify-full&sslrootcert={folder}/ca.pem"
        f"&sslcert={folder}/worker.pem&sslkey={folder}/worker.key"
    )

    def is_reloaded() -> bool:
        try:
            psycopg.connect(whole).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_for(is_reloaded)
    server = Server(whole)
    prepare(server, QUEUE_NAME, OWNER)
    queue = PostgresQueue(server, QUEUE_NAME, lambda: OWNER)
    queue.submit(request_of())
    assert queue.claim("w", LEASE_S) is not None
    with server.transaction() as connection:
        row = connection.execute(
            "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
    assert row == {"ssl": True, "client_dn": "/CN=worker"}
    queue.close()

    certificate(folder, "stranger", "stranger")
    for wrong in (
        whole.replace("worker.", "stranger."),
        whole.replace("localhost", "127.0.0.1"),
        f"{url}?sslmode=disable",
    ):
        with pytest.raises(TransientError), Server(wrong).transaction():
            pass
