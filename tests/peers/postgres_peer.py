"""A PostgreSQL server of a test's own, as an unprivileged user, on a port of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

_USER = "postgres"  # the server refuses to run as root


def binaries() -> Path | None:
    """The folder of initdb and postgres; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class PostgresPeer:
    """One server; to be stopped by whoever made it.

    Parameters
    ----------
    options
        Settings of the server, ``name=value``.
    addresses
        Where it listens beside 127.0.0.1; everybody is trusted there.
    is_durable
        Whether what is committed is on the disk, as in service.
    folder
        To hold its data; None: in memory, where there is room.
    """

    def __init__(
        self,
        options: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        is_durable: bool = False,
        folder: Path | None = None,
    ) -> None:
        found = binaries()
        assert found is not None, "PostgreSQL is not installed"
        self._binaries = found
        ram = Path("/dev/shm")
        parent = folder or (ram if os.access(ram, os.W_OK) else None)
        self.folder = Path(tempfile.mkdtemp(prefix="pacs-bridge-postgres-", dir=parent))
        self._as_user: dict[str, object] = {"env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
        if os.getuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        durable = (
            () if is_durable else ("fsync=off",)
        )  # a killed server loses nothing, a crashed disk would
        self._options = (
            f"port={self.port}",
            f"listen_addresses={','.join(('127.0.0.1', *addresses))}",
            f"unix_socket_directories={self.folder}",
            "max_connections=200",
            *durable,
            *options,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._run("initdb", "-D", "data", "-U", "bridge", "-A", "trust", "-E", "UTF8", "--no-sync")
        for address in addresses:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {address}/16 trust\n")
        self.start()

    def url(self, database: str = "postgres", host: str = "127.0.0.1") -> str:
        """Where a database of it is."""
        return f"postgresql://bridge@{host}:{self.port}/{database}"

    def new_database(self, template: str = "template1") -> str:
        """Make a database; gives its URL."""
        self._databases += 1
        name = f"d{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return self.url(name)

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", "data"]
        for option in self._options:
            command += ["-c", option]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdout=log, stderr=log, **self._as_user
        )
        log.close()
        deadline_s = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline_s, (self.folder / "log").read_text()
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it; by default at once, as a crash would (``immediate``)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as_user,
        )
