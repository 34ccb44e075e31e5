"""The machine and the libraries that a figure was measured on (Linux)."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
LIBRARIES = ("torch", "monai", "highdicom", "pydicom", "pynetdicom", "SimpleITK", "dcmqi", "numpy")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what a run was made."""

    cpu: str
    cores: int  #: that this process may use
    flags: tuple[str, ...]  #: of ``FLAGS``, those that the CPU has
    memory_gb: float
    device: str  #: name of the CUDA device, or empty
    libraries: dict[str, str]  #: name -> version
    commit: str  #: with ``+`` if tracked files differ from it

    @classmethod
    def this(cls) -> Machine:
        """The machine that this runs on."""
        cpu = Path("/proc/cpuinfo").read_text()
        name = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
        flags = re.search(r"^flags\s*: (.*)$", cpu, re.MULTILINE)
        has = set(flags[1].split()) if flags else set()
        return cls(
            cpu=name[1] if name else os.uname().machine,
            cores=len(os.sched_getaffinity(0)),
            flags=tuple(flag for flag in FLAGS if flag in has),
            memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            device=_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
            libraries=_versions(),
            commit=_output("git", "describe", "--always", "--abbrev=12", "--dirty=+"),
        )


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    for name, command in (("DCMTK", "/usr/bin/storescp"), ("Orthanc", "/usr/sbin/Orthanc")):
        numbers = re.search(r"\d+\.\d+\.\d+", _output(command, "--version"))
        if numbers:
            found[name] = numbers[0]
    return found


def _output(*command: str) -> str:
    """First line that a command prints, or nothing where it does not run."""
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next(iter(done.stdout.splitlines()), "")
