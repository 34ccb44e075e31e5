"""The instances of one series as they come from an archive: bytes into files of our own making."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_seg.provenance import instance_digest
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.receive.header import is_valid_uid
from pacs_bridge.sources.received_instance import ReceivedInstance

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """What is more than this is no series of a CT."""

    max_instance_bytes: int
    max_series_bytes: int

    @classmethod
    def of(cls, max_instance_mib: int, max_series_gib: int) -> SizeLimits:
        """From the units of the configuration."""
        return cls(max_instance_mib * _MIB, max_series_gib * 1024 * _MIB)


@dataclass(frozen=True, slots=True)
class WantedSeries:
    """What was asked for."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: frozenset[str] | None = None  #: None: all that are of the series


class ReceivedSeries:
    """Files of one series; for any number of threads.

    Parameters
    ----------
    folder
        For these files alone; it need not exist. What an earlier attempt left is deleted.
    wanted
        Instances that are not on its list are not kept.
    limits
        In bytes.

    Raises
    ------
    TransientError
        ``disk-full`` or ``internal-error`` if the folder cannot be written.
    """

    def __init__(self, folder: Path, wanted: WantedSeries, limits: SizeLimits) -> None:
        self._folder = folder
        self._wanted = wanted
        self._limits = limits
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._paths: dict[str, Path] = {}
        self._total_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left_over in folder.iterdir():
                left_over.unlink()
        except OSError as error:
            raise _disk_error(error) from error

    @property
    def sop_instance_uids(self) -> Set[str]:
        """Of what is there whole."""
        with self._lock:
            return set(self._paths)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in the order of their arrival."""
        with self._lock:
            return tuple(self._paths.values())

    def check_size(self, announced_bytes: int | None) -> None:
        """Refuse an instance that announces more than is allowed, before any of it is read.

        Raises
        ------
        PermanentError
            ``too-large``.
        """
        if (announced_bytes or 0) > self._limits.max_instance_bytes:
            raise self._too_large()

    def take(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write one Part 10 stream to a file.

        An error of ``pieces`` leaves nothing.

        Raises
        ------
        TransientError, PermanentError
            As ``IncomingFile.write`` and ``IncomingFile.keep``.
        """
        incoming = self.begin()
        try:
            for piece in pieces:
                incoming.write(piece)
            incoming.keep()
        finally:
            incoming.discard()

    def begin(self) -> IncomingFile:
        """A file for one instance.

        Raises
        ------
        TransientError
            ``disk-full`` or ``internal-error`` if it cannot be made.
        """
        return IncomingFile(self, self._folder / f"{next(self._numbers):06d}.dcm")

    def count(self, piece_bytes: int, instance_bytes: int) -> None:
        """Count a piece of an instance that has so many bytes with it.

        Raises
        ------
        PermanentError
            ``too-large``.
        """
        with self._lock:
            self._total_bytes += piece_bytes
            is_too_large = self._total_bytes > self._limits.max_series_bytes
        if is_too_large or instance_bytes > self._limits.max_instance_bytes:
            raise self._too_large()

    def forget(self, piece_bytes: int) -> None:
        """Do not count what was not kept."""
        with self._lock:
            self._total_bytes -= piece_bytes

    def enter(self, part: Path, path: Path) -> bool:
        """Give a whole file its name; False if its instance is there already, or not wanted.

        Raises
        ------
        CutInstanceError
            ``source-incomplete`` if it breaks off.
        PermanentError
            ``bad-answer`` if it is no DICOM file, or of another series or study;
            ``conflicting-instance`` if its instance is there with other bytes; what
            ``ReceivedInstance`` says of its header and its pixels.
        """
        instance = ReceivedInstance.of(part)
        uid, series = instance.sop_instance_uid, instance.series_instance_uid
        if series != self._wanted.series_instance_uid:
            named = series if is_valid_uid(series) else "no valid UID"
            raise PermanentError(Reason.BAD_ANSWER, f"an instance of another series: {named}")
        listed = self._wanted.sop_instance_uids
        if listed is not None and uid not in listed:
            return False
        if instance.study_instance_uid != self._wanted.study_instance_uid:
            raise PermanentError(Reason.BAD_ANSWER, "an instance of another study")
        instance.check_whole()
        with self._lock:
            first = self._paths.get(uid)
            if first is None:
                part.rename(path)
                self._paths[uid] = path
                return True
        if instance_digest(part) != instance_digest(first):
            raise PermanentError(
                Reason.CONFLICTING_INSTANCE, f"instance {uid} came twice, with other bytes"
            )
        return False

    def _too_large(self) -> PermanentError:
        instance_mib = self._limits.max_instance_bytes // _MIB
        series_mib = self._limits.max_series_bytes // _MIB
        return PermanentError(
            Reason.TOO_LARGE,
            f"an instance of over {instance_mib} MiB, or a series of over {series_mib} MiB",
        )


class IncomingFile:
    """One instance being written.

    Parameters
    ----------
    series
        That it belongs to.
    path
        Its name, once it is whole.
    """

    def __init__(self, series: ReceivedSeries, path: Path) -> None:
        self._series = series
        self._path = path
        self._part = path.with_suffix(".part")
        self._size_bytes = 0
        self._is_owed = True  #: to be counted no more, unless it is kept
        try:
            self._file = self._part.open("xb")
        except OSError as error:
            raise _disk_error(error) from error

    def write(self, piece: bytes | memoryview) -> None:
        """Append to the Part 10 stream.

        Raises
        ------
        TransientError
            ``disk-full`` or ``internal-error``.
        PermanentError
            ``too-large``.
        """
        self._size_bytes += len(piece)
        self._series.count(len(piece), self._size_bytes)
        try:
            self._file.write(piece)
        except OSError as error:
            raise _disk_error(error) from error

    def keep(self) -> None:
        """It is whole. One that is there already, or that nobody wants, is not kept.

        Raises
        ------
        TransientError
            ``disk-full`` or ``internal-error``; ``source-incomplete`` if it breaks off.
        PermanentError
            As ``ReceivedSeries.enter``.
        """
        try:
            self._file.close()
            if self._series.enter(self._part, self._path):
                self._is_owed = False
        except OSError as error:
            raise _disk_error(error) from error

    def discard(self) -> None:
        """Leave nothing behind of what was not kept."""
        if self._is_owed:
            self._is_owed = False
            self._series.forget(self._size_bytes)
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


def _disk_error(error: OSError) -> TransientError:
    return TransientError(disk_reason(error), error.strerror or type(error).__name__)
