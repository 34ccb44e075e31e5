"""Programs of others that tests run: whether they are there, where they listen, how they end."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest


def need_programs(*programs: Path) -> None:
    """Skip the test where one is missing; fail it in CI."""
    missing = [str(path) for path in programs if not path.exists()]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"peers are missing: {missing}")
    if missing:
        pytest.skip(f"peers are not installed: {missing}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens at, each another."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and wait for that."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
