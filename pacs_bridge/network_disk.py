"""Whether a folder lies on a disk of another machine, on which SQLite loses data.

Its write-ahead log is shared through memory, which two machines do not have in common
(sqlite.org/wal.html).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "fuse.sshfs", "davfs"),
        *("fuse.davfs2", "ceph", "fuse.ceph-fuse", "lustre", "gpfs", "beegfs", "fuse.glusterfs"),
        *("pvfs2", "fuse.juicefs", "gfs2", "ocfs2", "9p", "virtiofs"),
        *("panfs", "wekafs", "lizardfs", "fuse.mfs", "vboxsf", "prl_fs", "fuse.vmhgfs-fuse"),
        *("fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.smbnetfs"),
    }
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def network_disk(folder: Path, mounts: Path | None = None) -> str:
    """The kind of network file system that a folder lies on; empty for none, or where unknown.

    Parameters
    ----------
    folder
        It need not exist.
    mounts
        A list as proc_pid_mountinfo(5) describes it; None: that of this process.
    """
    try:
        lines = (
            (mounts or _MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return ""
    real = folder.resolve()
    longest, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        place = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        # of two mounts at one place the later one is seen
        if real.is_relative_to(place) and len(place.parts) >= longest:
            longest, kind = len(place.parts), after.split(" ")[0]
    return kind if kind in _NETWORK else ""
