"""The key by which identifiers are hidden."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
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


def test_no_key_is_made_in_a_folder_that_is_only_looked_into(tmp_path: Path) -> None:
    """A mount point before its mount, on the machine of a worker elsewhere."""
    mounted = tmp_path / "mounted"
    early, other = IdentityHash.known(mounted), IdentityHash.known(mounted)
    assert not mounted.exists()
    assert early.of("PID-1") != other.of("PID-1")

    of_bridge = IdentityHash.load(mounted)
    assert early.of("PID-1") == of_bridge.of("PID-1") == IdentityHash.known(mounted).of("PID-1")


def test_a_key_of_another_user_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    IdentityHash.load(tmp_path)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read everything
    for load in (IdentityHash.load, IdentityHash.known):
        with pytest.raises(PermanentError, match=f"user id {os.geteuid()}: Permission") as caught:
            load(tmp_path)
        assert caught.value.reason is Reason.DATA_FOLDER_DENIED
