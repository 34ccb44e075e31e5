"""Which source a job's files come from, and what the disk must keep free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.queue import JobClaim, JobRequest
from pacs_bridge.sources.configured_sources import ConfiguredSources, RemoteSources
from pacs_bridge.sources.remote_archive import FoundSeries, SeriesQuery


class _Shelf:
    """A ``RemoteArchive`` of one file a series."""

    def find(self, query: SeriesQuery, _check=None) -> Iterator[FoundSeries]:
        return iter(())

    def fetch(
        self, study_instance_uid: str, series_instance_uid: str, folder: Path, check: Callable
    ) -> tuple[Path, ...]:
        check()
        folder.mkdir(parents=True)
        path = folder / "1.dcm"
        path.write_text(f"{study_instance_uid} {series_instance_uid}")
        return (path,)

    def ask(self) -> str:
        return "here"


def _claim(source: str) -> JobClaim:
    request = JobRequest("1.2.3", 2, "all", "m", ("a",), source=source, study_instance_uid="1.2")
    return JobClaim(1, 1, request, 1, "w", datetime(2026, 3, 1, tzinfo=UTC), ())


def test_a_job_gets_the_files_of_the_source_that_it_names(tmp_path: Path) -> None:
    sources = ConfiguredSources({"shelf": RemoteSources(_Shelf(), tmp_path)})
    source = sources.fetch(_claim("shelf"), tmp_path / "scratch", lambda: None)
    assert [path.read_text() for path in source.paths] == ["1.2 1.2.3"]
    assert (source.revision, source.root) == (2, tmp_path / "scratch")


def test_a_source_that_is_not_configured_is_said(tmp_path: Path) -> None:
    sources = ConfiguredSources({"shelf": RemoteSources(_Shelf(), tmp_path)})
    with pytest.raises(PermanentError, match="shelf") as unknown:
        sources.fetch(_claim("gone"), tmp_path, lambda: None)
    assert unknown.value.reason is Reason.UNKNOWN_SOURCE


def test_nothing_is_fetched_into_the_reserve_of_the_disk(tmp_path: Path) -> None:
    sources = RemoteSources(_Shelf(), tmp_path, reserve_free_bytes=1 << 60)
    with pytest.raises(TransientError) as full:
        sources.fetch(_claim("shelf"), tmp_path / "scratch" / "1", lambda: None)
    assert full.value.reason is Reason.DISK_FULL
