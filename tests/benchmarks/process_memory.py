"""Memory of a process as Linux tells it (proc(5)), in the one unit of every table."""

from __future__ import annotations

import resource
from pathlib import Path

#: What Linux calls a kB.
_KIB_BYTES = 1024


def status_mb(field: str, pid: int | str = "self") -> float:
    """A field of ``/proc/PID/status``, such as ``VmHWM``; decimal megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[field].split()[0]) * _KIB_BYTES / 1e6


def peak_mb() -> float:
    """Most that this process has held since it began; decimal megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB_BYTES / 1e6
