"""Searches by C-FIND of archives that list what nobody asked for, or cannot be asked for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.remote_archive import SeriesQuery

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),
]
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


class Leaving(Exception):
    """What a caller raises to end a search."""


@dataclass
class Catalogue:
    """A C-FIND SCP that knows no key but the study's."""

    studies: list[tuple[str, str]] = field(default_factory=list)  #: UID, date
    series: dict[str, list[str]] = field(default_factory=dict)  #: UIDs, by study
    requests: list[tuple[str, str]] = field(default_factory=list)  #: level, study
    is_silent: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        level, study = str(asked.QueryRetrieveLevel), str(asked.get("StudyInstanceUID", ""))
        self.requests.append((level, study))
        if self.is_silent:
            self.let_go.wait(60)
        if level == "STUDY":
            for uid, day in self.studies:
                yield 0xFF00, _match(level, StudyInstanceUID=uid, StudyDate=day)
        else:
            for number, uid in enumerate(self.series.get(study, [])):
                yield (
                    0xFF00,
                    _match(
                        level,
                        StudyInstanceUID=study,
                        SeriesInstanceUID=uid,
                        Modality="CT",
                        SeriesDescription=f"number {number}",
                    ),
                )
        yield 0x0000, None


def _match(level: str, **told: str) -> Dataset:
    match = Dataset()
    match.QueryRetrieveLevel = level
    for keyword, value in told.items():
        setattr(match, keyword, value)
    return match


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    made = Catalogue()
    ae = AE(ae_title="A")
    ae.add_supported_context(FIND)
    handlers = [(evt.EVT_C_FIND, made.find)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    made.port = server.server_address[1]
    yield made
    made.let_go.set()
    server.shutdown()


@pytest.fixture
def open_archive(kept_log: Any) -> Callable[[int], DimseArchive]:
    def make(port: int) -> DimseArchive:
        table = {"name": "pacs", "kind": "dimse", "ae_title": "A", "host": "127.0.0.1"}
        config = DimseSourceConfig.model_validate_json(
            json.dumps(table | {"port": port, "response_timeout_s": 600})
        )
        return DimseArchive(config, "PACSBRIDGE", kept_log, BriefRetry(lambda seconds: None))

    return make


def test_what_has_no_valid_uid_is_given_as_such_and_never_asked_for(
    catalogue: Catalogue, open_archive: Callable[[int], DimseArchive], kept_log: Any
) -> None:
    catalogue.studies = [("1.2", "20260301"), ("", "20260302"), ("../x", "20260303")]
    catalogue.series = {"1.2": ["1.2.3", "", "", "../y"]}
    found = list(open_archive(catalogue.port).find(SeriesQuery(modalities=())))
    assert [each.series_instance_uid for each in found if each.is_named] == ["1.2.3"]
    assert sum(not each.is_named for each in found) == 5
    assert catalogue.requests == [("STUDY", ""), ("SERIES", "1.2")]
    assert kept_log.lines == [("series-without-uid", {"source": "pacs", "number": 5})]


def test_an_archive_that_knows_no_dates_gives_no_more_than_was_asked_for(
    catalogue: Catalogue, open_archive: Callable[[int], DimseArchive]
) -> None:
    catalogue.studies = [(f"1.2.{day}", f"202603{day:02}") for day in range(1, 8)]
    catalogue.series = {uid: [f"{uid}.1"] for uid, _ in catalogue.studies}
    query = SeriesQuery(from_date=date(2026, 3, 2), to_date=date(2026, 3, 4))
    found = list(open_archive(catalogue.port).find(query))
    assert [each.study_date for each in found] == ["20260302", "20260303", "20260304"]


def test_a_check_that_raises_ends_a_search_between_two_requests(
    catalogue: Catalogue, open_archive: Callable[[int], DimseArchive]
) -> None:
    catalogue.studies = [(f"1.2.{number}", "20260301") for number in range(50)]

    def check() -> None:
        if len(catalogue.requests) >= 5:
            raise Leaving

    with pytest.raises(Leaving):
        list(open_archive(catalogue.port).find(SeriesQuery(), check))
    assert len(catalogue.requests) == 5


def test_a_check_that_raises_ends_a_search_that_waits_for_an_answer(
    catalogue: Catalogue, open_archive: Callable[[int], DimseArchive]
) -> None:
    catalogue.is_silent = True

    def check() -> None:
        if catalogue.requests:
            raise Leaving

    with pytest.raises(Leaving):
        list(open_archive(catalogue.port).find(SeriesQuery(), check))


def test_a_check_that_raises_ends_a_search_that_waits_for_an_association(
    open_archive: Callable[[int], DimseArchive],
) -> None:
    is_reached, let_go = threading.Event(), threading.Event()

    def accept() -> None:
        connection, _ = listening.accept()
        with connection:
            is_reached.set()
            let_go.wait(60)

    def check() -> None:
        if is_reached.is_set():
            raise Leaving

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(Leaving):
            list(open_archive(listening.getsockname()[1]).find(SeriesQuery(), check))
        let_go.set()
        thread.join()
