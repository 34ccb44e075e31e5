"""The key by which identifiers are hidden."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pacs_bridge.identity_hash import KEY_NAME, IdentityHash


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    first, second = IdentityHash.load(tmp_path), IdentityHash.load(tmp_path)

    assert first.of("PID-1") == second.of("PID-1")
    assert first.of("PID-1") != first.of("PID-2")
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_what_one_of_the_same_process_number_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    """In a container the service has the same number at every start."""
    (tmp_path / f"{KEY_NAME}.{os.getpid()}.partial").write_bytes(b"")
    assert IdentityHash.load(tmp_path).of("PID-1")
