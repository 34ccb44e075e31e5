"""Versions of Orthanc and of its Python plugin that are known to have faults."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SAFE_ORTHANC = (1, 12, 11)


def version_warnings(orthanc: str, python_plugin: str) -> Iterator[str]:
    """What is wrong with these versions; a version that is no number is not judged."""
    found = _numbers(orthanc)
    if found is not None and found < _SAFE_ORTHANC:
        yield (
            f"Orthanc {orthanc} has known faults by which a file or a request can crash it or run"
            " code in it (CVE-2026-5437 to CVE-2026-5445): use 1.12.11 or later"
        )
    plugin = _numbers(python_plugin)
    if plugin is not None and plugin < (3, 1):
        yield f"the Python plugin {python_plugin} can deadlock with Orthanc: use 4.3 or later"
    elif plugin is not None and plugin < (4, 1):
        yield (
            f"the Python plugin {python_plugin} loses memory at each call of Orthanc: use 4.3 or"
            " later"
        )


def _numbers(version: str) -> tuple[int, ...] | None:
    found = re.match(r"\d+(\.\d+)*", version.strip())
    return tuple(map(int, found.group().split("."))) if found else None
