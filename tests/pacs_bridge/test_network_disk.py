"""Network disks are told from local ones, and hold no plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge import network_disk as module
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.errors import PermanentError
from pacs_bridge.network_disk import network_disk

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /data rw,relatime shared:5 - nfs4 filer:/export rw,vers=4.2
31 30 8:2 / /data/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\\040space rw master:1 - cifs //filer/x rw
33 22 0:42 / /twice rw - nfs filer:/twice rw
34 22 8:3 / /twice rw - ext4 /dev/sdc1 rw
35 22 0:43 / /scratch rw - lustre mds@tcp:/scratch rw
36 22 0:44 / /host rw - virtiofs host rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/run", ""), ("/data/run", "nfs4"), ("/data", "nfs4"), ("/database", ""),
        ("/scratch/a", "lustre"), ("/host/a", "virtiofs"), ("/data/local/run", ""),
        ("/mnt/with space/run", "cifs"), ("/twice/run", ""),
    ],
)  # fmt: skip
def test_the_disk_of_a_folder_is_the_innermost_mount(tmp_path, folder, kind):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_disk(Path(folder), mounts) == kind


def test_where_mounts_are_not_known_no_disk_is_a_network_disk(tmp_path):
    assert network_disk(tmp_path, tmp_path / "gone") == ""


def test_no_plan_is_made_or_opened_on_a_network_disk(tmp_path, monkeypatch):
    PlanFile(tmp_path / "run", must_exist=False).close()
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:40 / / rw - nfs4 filer:/ rw\n")
    monkeypatch.setattr(module, "_MOUNTS", mounts)
    for folder in ("run", "new"):
        with pytest.raises(PermanentError, match="nfs4") as caught:
            PlanFile(tmp_path / folder, must_exist=folder == "run")
        assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    assert not (tmp_path / "new").exists()
