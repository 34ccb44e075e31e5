"""Locks that other processes see."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pacs_bridge.file_lock import LockKind, is_locked, lock, unlock

TRY = """
import os, sys
from pacs_bridge.file_lock import LockKind, is_locked, lock
descriptor = os.open(sys.argv[1], os.O_RDWR)
print(is_locked(descriptor), *(lock(descriptor, kind) for kind in LockKind))
"""


@pytest.fixture
def opened(tmp_path):
    """Open the file anew, each time as another process would."""
    (tmp_path / "file").touch()
    found = []

    def run():
        found.append(os.open(tmp_path / "file", os.O_RDWR))
        return found[-1]

    yield run
    for each in found:
        os.close(each)


def test_many_share_a_lock_and_one_alone_has_it_exclusively(opened):
    a, b = opened(), opened()
    assert not is_locked(a)
    assert lock(a, LockKind.SHARED)
    assert lock(b, LockKind.SHARED)
    assert not lock(a, LockKind.EXCLUSIVE)
    assert is_locked(a)

    unlock(b)
    assert not is_locked(a)  # ours is not somebody else's
    assert lock(a, LockKind.EXCLUSIVE)
    assert not lock(b, LockKind.SHARED)
    assert lock(a, LockKind.SHARED)
    assert lock(b, LockKind.SHARED)


def test_a_lock_stays_when_the_file_is_closed_elsewhere_in_the_process(opened, tmp_path):
    a = opened()
    assert lock(a, LockKind.SHARED)
    os.close(os.open(tmp_path / "file", os.O_RDWR))

    said = subprocess.run(
        [sys.executable, "-c", TRY, tmp_path / "file"], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["True", "True", "False"]
