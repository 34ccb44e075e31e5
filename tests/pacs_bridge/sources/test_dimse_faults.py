"""Every way in which an archive can fail a query or a retrieval, by one that does."""

from __future__ import annotations

import gc
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, association, build_context, evt

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.deliver.line import Line
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.port_turn import PortTurn
from pacs_bridge.sources.remote_archive import SeriesQuery
from pacs_bridge.sources.sub_operations import SubOperations

#: The library's SCP leaves sockets open that were refused or cut; ours are looked at elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SHORT_S = 0.5  #: response time out of what is to be silent


def _nothing() -> None:
    pass


@dataclass
class Flaky:
    """A query/retrieve SCP of one series that fails as it is told."""

    instances: list[Dataset]
    move_port: int = 0
    port: int = 0
    associations: int = 0
    drop_every: int = 0  #: every so-many-th association is aborted at once
    find_statuses: list[int] = field(default_factory=list)  #: of coming searches
    retrieve_statuses: list[int] = field(default_factory=list)  #: of coming retrievals
    knows_destination: bool = True
    needs_study: bool = False  #: it is hierarchical alone
    leave_out: int = 0  #: instances that are listed and not sent
    forgets: list[int] = field(default_factory=list)  #: one that a coming retrieval leaves out
    retrieves_images: bool = True  #: or says that it knows no such level
    heeds_lists: bool = True  #: or finds nothing for a list of UIDs
    cut_after: list[int] = field(default_factory=list)  #: sub-operations, then the line is cut
    end_statuses: list[int] = field(default_factory=list)  #: when a coming retrieval has sent all
    extra: list[Dataset] = field(default_factory=list)  #: sent as well
    silent_at: str = ""  #: find or retrieve
    listed_count: int | None = None
    requests: list[str] = field(default_factory=list)
    sent: int = 0  #: instances
    lines: list[Line] = field(default_factory=list)
    ae: AE = field(default_factory=lambda: AE(ae_title="FLAKY"))
    let_go: threading.Event = field(default_factory=threading.Event)

    def established(self, event: evt.Event) -> None:
        self.associations += 1
        if self.drop_every and self.associations % self.drop_every == 0:
            event.assoc.abort()

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.requests.append(event.identifier.QueryRetrieveLevel)
        if self.silent_at == "find":
            self.let_go.wait(30)
        if self.find_statuses:
            yield self.find_statuses.pop(0), None
            return
        if self.needs_study and not event.identifier.StudyInstanceUID:
            yield 0xA900, None
            return
        level = event.identifier.QueryRetrieveLevel
        rows = self.instances if level == "IMAGE" else self.instances[:1]
        for ds in rows:
            match = Dataset()
            match.QueryRetrieveLevel = level
            match.StudyInstanceUID = ds.StudyInstanceUID
            if level != "STUDY":
                match.SeriesInstanceUID = ds.SeriesInstanceUID
                match.Modality = "CT"
                match.NumberOfSeriesRelatedInstances = self.listed_count or len(self.instances)
            if level == "IMAGE":
                match.SOPInstanceUID = ds.SOPInstanceUID
                match.SOPClassUID = ds.SOPClassUID
            yield 0xFF00, match
        yield 0x0000, None

    def _asked_for(self, identifier: Dataset) -> list[Dataset]:
        given = self.instances[self.leave_out :]
        if identifier.QueryRetrieveLevel != "IMAGE":
            return given
        if not self.retrieves_images or not self.heeds_lists:
            return []
        asked = identifier["SOPInstanceUID"].value
        uids = [asked] if isinstance(asked, str) else list(asked)
        self.requests[-1] += f" of {len(uids)}"
        return [ds for ds in given if ds.SOPInstanceUID in uids]

    def _given(self, event: evt.Event) -> Iterator[Any]:
        if self.silent_at == "retrieve":
            self.let_go.wait(30)
        given = [*self._asked_for(event.identifier), *self.extra]
        if self.forgets:
            del given[self.forgets.pop(0)]
        self.sent += len(given)
        if event.identifier.QueryRetrieveLevel == "IMAGE" and not self.retrieves_images:
            yield 1
            yield 0xA900, None
            return
        end_status = self.end_statuses.pop(0) if self.end_statuses else 0
        yield len(given) + bool(end_status)
        if self.retrieve_statuses:
            yield self.retrieve_statuses.pop(0), None
            return
        cut_after = self.cut_after.pop(0) if self.cut_after else None
        for number, ds in enumerate(given):
            if number == cut_after:
                event.assoc.abort()
                return
            yield 0xFF00, ds
        if cut_after == len(given):
            event.assoc.abort()
        elif end_status:
            yield end_status, None

    def get(self, event: evt.Event) -> Iterator[Any]:
        self.requests.append("C-GET")
        yield from self._given(event)

    def move(self, event: evt.Event) -> Iterator[Any]:
        self.requests.append(f"C-MOVE to {event.move_destination}")
        if not self.knows_destination:
            yield None, None
            return
        # pynetdicom leaves a socket open whose connection was refused
        self.lines.append(Line(60.0))
        how = {
            "contexts": [build_context(CT, EXPLICIT)],
            "ae_title": event.move_destination,
            "evt_handlers": [
                *self.lines[-1].handlers(),
                (evt.EVT_ESTABLISHED, lambda opened: keep_responses(opened.assoc)),
            ],
        }
        yield "127.0.0.1", self.move_port, how
        yield from self._given(event)


@pytest.fixture(scope="module")
def closing() -> Iterator[ThreadPoolExecutor]:
    """Servers take half a second to stop: not one after the other."""
    with ThreadPoolExecutor() as executor:
        yield executor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def original(make_original: Callable[..., Any]) -> Any:
    return make_original(6)


@pytest.fixture
def flaky(original: Any, closing: ThreadPoolExecutor) -> Iterator[Flaky]:
    apply_library_settings()
    with socket.create_server(("127.0.0.1", 0)) as free:
        move_port = free.getsockname()[1]
    made = Flaky([pydicom.dcmread(path) for path in original.paths], move_port)
    ae = made.ae
    for model in (FIND, GET, MOVE):
        ae.add_supported_context(model)
    ae.add_supported_context(CT, EXPLICIT, scu_role=True, scp_role=True)
    ae.add_requested_context(CT, EXPLICIT)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_ESTABLISHED, made.established),
            (evt.EVT_C_FIND, made.find),
            (evt.EVT_C_GET, made.get),
            (evt.EVT_C_MOVE, made.move),
        ],
    )
    made.port = server.server_address[1]
    yield made
    made.let_go.set()
    for line in made.lines:
        line.close()
    closing.submit(server.shutdown)


@pytest.fixture
def open_archive(flaky: Flaky, kept_log: Any) -> Callable[..., DimseArchive]:
    def make(
        retrieve: str = "c-get",
        wait: Callable[[float], object] = lambda seconds: None,
        **settings: object,
    ) -> DimseArchive:
        table = {
            "name": "pacs",
            "kind": "dimse",
            "ae_title": "FLAKY",
            "host": "127.0.0.1",
            "port": flaky.port,
            "response_timeout_s": 20,
            "retrieve": retrieve,
            "move_ae_title": "BRIDGEFETCH",
            "move_port": flaky.move_port,
        }
        config = DimseSourceConfig.model_validate_json(json.dumps(table | settings))
        return DimseArchive(config, "PACSBRIDGE", kept_log, BriefRetry(wait))

    return make


@pytest.fixture
def fetch(
    open_archive: Callable[..., DimseArchive], original: Any, tmp_path: Path
) -> Callable[..., tuple[Path, ...]]:
    def run(retrieve: str = "c-get", **settings: object) -> tuple[Path, ...]:
        archive = open_archive(retrieve, **settings)
        return archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)

    return run


def _error(fetch: Callable[..., object], *args: object, **settings: object) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        fetch(*args, **settings)
    return caught.value


BOTH = pytest.mark.parametrize("retrieve", ["c-get", "c-move"])


@BOTH
def test_a_sound_archive_gives_the_series(
    fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    original.assert_is(fetch(retrieve))


@BOTH
def test_an_archive_that_drops_associations_is_asked_again(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    flaky.drop_every = 10
    for _ in range(6):
        original.assert_is(fetch(retrieve))
    assert flaky.associations > 12  # two for each, and those that were dropped


def test_a_search_over_many_studies_outlives_dropped_associations(
    flaky: Flaky, open_archive: Callable[..., DimseArchive], original: Any
) -> None:
    flaky.drop_every = 2
    studies = (original.study_uid, *(f"1.2.{number}" for number in range(4)))
    found = list(open_archive().find(SeriesQuery(study_instance_uids=studies)))
    assert [each.series_instance_uid for each in found] == [original.series_uid]
    assert flaky.requests == ["STUDY", "SERIES"] * 5


@BOTH
def test_an_association_that_breaks_in_the_middle_is_made_up_for(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    flaky.cut_after = [3]
    original.assert_is(fetch(retrieve))


@BOTH
def test_of_a_series_that_did_not_come_whole_only_what_is_missing_is_asked_for_again(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    flaky.forgets = [2]
    original.assert_is(fetch(retrieve))

    assert len(flaky.requests) == 4
    assert flaky.requests[-1].endswith(" of 1")
    assert flaky.sent == 6


@BOTH
def test_what_came_before_an_association_broke_is_not_asked_for_again(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    flaky.cut_after = [4]
    original.assert_is(fetch(retrieve))

    assert flaky.requests[-1].endswith((" of 2", " of 3"))  # the fourth may be cut with it


@BOTH
@pytest.mark.parametrize("lack", ["retrieves_images", "heeds_lists"])
def test_an_archive_that_gives_no_images_by_their_uids_is_asked_for_the_series_once_more(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str, lack: str
) -> None:
    setattr(flaky, lack, False)
    flaky.forgets = [2]
    original.assert_is(fetch(retrieve))

    request = "C-GET" if retrieve == "c-get" else "C-MOVE to BRIDGEFETCH"
    assert flaky.requests == ["SERIES", "IMAGE", *[request] * 3]
    assert flaky.sent == 5 + 6


def test_an_archive_that_gives_no_images_by_their_uids_is_not_asked_for_them_again(
    flaky: Flaky, fetch: Callable[..., Any]
) -> None:
    flaky.retrieves_images = False
    flaky.leave_out = 1
    assert _error(fetch).reason is Reason.SOURCE_INCOMPLETE

    assert len(flaky.requests) == 2 + 4  # three attempts, and one for an image


@BOTH
@pytest.mark.parametrize("ending", ["cut_after", "end_statuses"])
def test_a_series_that_is_there_whole_is_not_asked_for_again_whatever_its_retrieval_ends_with(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str, ending: str
) -> None:
    flaky.retrieves_images = False
    flaky.forgets = [2]
    setattr(flaky, ending, [0xFFFF, *[6] * 3] if ending == "cut_after" else [0, *[0xA702] * 3])
    original.assert_is(fetch(retrieve))

    assert flaky.sent == 5 + 6


@BOTH
def test_an_archive_that_is_not_reached_with_a_request_for_images_is_asked_for_them_later(
    flaky: Flaky,
    open_archive: Callable[..., DimseArchive],
    original: Any,
    tmp_path: Path,
    retrieve: str,
) -> None:
    taken = iter([["NOBODY"]])

    def wait(_seconds: float) -> None:
        flaky.ae.require_calling_aet = next(taken, [])

    flaky.forgets = [2]
    archive = open_archive(retrieve, wait)
    original.assert_is(
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
    )
    assert flaky.sent == 6
    assert flaky.requests[-1].endswith(" of 1")


def test_an_archive_that_breaks_off_among_images_is_asked_for_the_rest_of_them(
    flaky: Flaky, fetch: Callable[..., Any], original: Any
) -> None:
    flaky.cut_after = [1, 3]
    original.assert_is(fetch())

    asked = [each for each in flaky.requests if each.startswith("C-GET")]
    assert asked[0] == "C-GET"
    assert all(" of " in each for each in asked[1:])


def test_an_archive_that_does_not_tell_how_many_it_has_sent_gives_images_all_the_same(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SubOperations, "of", classmethod(lambda told, _status: told()))
    flaky.forgets = [2]
    original.assert_is(fetch())

    assert flaky.sent == 6


def test_more_images_than_fit_a_request_are_asked_for_in_several(
    flaky: Flaky,
    fetch: Callable[..., Any],
    original: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pacs_bridge.sources.dimse_retrieval._IMAGES_A_REQUEST", 2)
    flaky.cut_after = [1]
    original.assert_is(fetch())

    assert [each for each in flaky.requests if " of " in each][:2] == ["C-GET of 2"] * 2


@BOTH
def test_fewer_instances_than_announced_are_no_series(
    flaky: Flaky, fetch: Callable[..., Any], retrieve: str
) -> None:
    flaky.leave_out = 2
    error = _error(fetch, retrieve)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_INCOMPLETE
    assert "2 of 6" in error.detail
    assert "4 completed" in error.detail


def test_fewer_instances_listed_than_counted_are_no_series(
    flaky: Flaky, fetch: Callable[..., Any]
) -> None:
    flaky.listed_count = 7
    assert _error(fetch).reason is Reason.SOURCE_INCOMPLETE


@pytest.mark.parametrize("retrieve", ["search", "c-get", "c-move"])
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (0xA701, TransientError, Reason.SOURCE_UNREACHABLE),
        (0xA702, TransientError, Reason.SOURCE_UNREACHABLE),
        (0xC000, TransientError, Reason.SOURCE_UNREACHABLE),
        (0xA900, PermanentError, Reason.SOURCE_REFUSED),
        (0x0122, PermanentError, Reason.SOURCE_REFUSED),
        (0x0124, PermanentError, Reason.NOT_AUTHORISED),
    ],
)
def test_a_failure_is_said_by_its_status(
    flaky: Flaky,
    fetch: Callable[..., Any],
    retrieve: str,
    status: int,
    kind: type,
    reason: Reason,
) -> None:
    if retrieve == "search":
        flaky.find_statuses = [status] * 9
    else:
        flaky.retrieve_statuses = [status] * 9
    error = _error(fetch, "c-get" if retrieve == "search" else retrieve)
    assert isinstance(error, kind)
    assert error.reason is reason
    assert f"{status:04X}H" in error.detail


def test_a_search_for_which_there_are_no_resources_is_tried_again_briefly(
    flaky: Flaky, fetch: Callable[..., Any], original: Any
) -> None:
    flaky.find_statuses = [0xA700, 0xA700]
    original.assert_is(fetch())
    flaky.find_statuses = [0xA700] * 3
    error = _error(fetch)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_an_archive_that_is_hierarchical_alone_says_so_of_a_search_without_a_study(
    flaky: Flaky, open_archive: Callable[..., DimseArchive], original: Any
) -> None:
    flaky.needs_study = True
    series = (original.series_uid,)
    with pytest.raises(PermanentError) as refused:
        list(open_archive().find(SeriesQuery(series_instance_uids=series)))
    assert refused.value.reason is Reason.SOURCE_REFUSED
    query = SeriesQuery(study_instance_uids=(original.study_uid,), series_instance_uids=series)
    assert len(list(open_archive().find(query))) == 1


def test_an_archive_that_does_not_know_our_title_is_said(
    flaky: Flaky, fetch: Callable[..., Any]
) -> None:
    flaky.knows_destination = False
    error = _error(fetch, "c-move")
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "move_ae_title" in error.detail


@pytest.mark.parametrize("at", ["search", "c-get", "c-move"])
def test_an_archive_that_never_answers_is_left(
    flaky: Flaky, fetch: Callable[..., Any], at: str
) -> None:
    flaky.silent_at = "find" if at == "search" else "retrieve"
    error = _error(fetch, "c-move" if at == "c-move" else "c-get", response_timeout_s=SHORT_S)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "silent" in error.detail


@BOTH
def test_an_instance_of_another_series_is_not_taken(
    flaky: Flaky,
    fetch: Callable[..., Any],
    original: Any,
    make_original: Callable[..., Any],
    retrieve: str,
) -> None:
    flaky.extra = [pydicom.dcmread(make_original(1).paths[0])]
    if retrieve == "c-move":  # it may be late, and of an earlier request
        original.assert_is(fetch(retrieve))
    else:
        error = _error(fetch, retrieve)
        assert isinstance(error, PermanentError)
        assert error.reason is Reason.BAD_ANSWER


def _cut_one(monkeypatch: pytest.MonkeyPatch, uid: str, times: int) -> None:
    """The archive cuts an instance within its pixels as it sends it, so many times."""
    left = [times]
    encode = association.encode

    def encode_and_cut(ds: Dataset, *how: object, **more: object) -> bytes | None:
        data = encode(ds, *how, **more)
        if data is not None and ds.get("SOPInstanceUID") == uid and "PixelData" in ds and left[0]:
            left[0] -= 1
            return data[:-40]
        return data

    monkeypatch.setattr(association, "encode", encode_and_cut)


@BOTH
def test_an_instance_that_comes_cut_is_asked_for_again(
    flaky: Flaky,
    fetch: Callable[..., Any],
    original: Any,
    monkeypatch: pytest.MonkeyPatch,
    retrieve: str,
) -> None:
    _cut_one(monkeypatch, str(flaky.instances[2].SOPInstanceUID), 1)
    original.assert_is(fetch(retrieve))


@BOTH
def test_an_instance_that_always_comes_cut_is_missing_for_now_and_named(
    flaky: Flaky, fetch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, retrieve: str
) -> None:
    uid = str(flaky.instances[2].SOPInstanceUID)
    _cut_one(monkeypatch, uid, 99)
    error = _error(fetch, retrieve)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_INCOMPLETE
    assert uid in error.detail


@BOTH
def test_one_instance_with_two_contents_is_a_conflict(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, retrieve: str
) -> None:
    other = pydicom.dcmread(original.paths[0])
    other.PixelData = bytes(len(other.PixelData))
    flaky.extra = [other]
    error = _error(fetch, retrieve)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.CONFLICTING_INSTANCE


@BOTH
def test_an_instance_beyond_the_limit_is_too_large(
    flaky: Flaky, fetch: Callable[..., Any], retrieve: str
) -> None:
    flaky.instances[2].PixelData = bytes(2 << 20)
    error = _error(fetch, retrieve, max_instance_mib=1)
    assert error.reason is Reason.TOO_LARGE


def test_more_matches_than_are_allowed_are_an_error_and_not_a_part(
    flaky: Flaky, fetch: Callable[..., Any]
) -> None:
    error = _error(fetch, max_results=5)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.TOO_LARGE


def test_a_series_without_a_ct_image_is_not_fetched(
    flaky: Flaky, fetch: Callable[..., Any]
) -> None:
    for ds in flaky.instances:
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    error = _error(fetch)
    assert error.reason is Reason.NOT_CT
    assert flaky.requests == ["SERIES", "IMAGE"]


def test_a_stranger_cannot_send_to_an_open_door(
    flaky: Flaky, fetch: Callable[..., Any], kept_log: Any
) -> None:
    error = _error(fetch, "c-move", move_addresses=["127.0.0.2"])
    assert isinstance(error, TransientError)
    assert any(event == "association-rejected" for event, _ in kept_log.lines)
    assert not any(event == "association-accepted" for event, _ in kept_log.lines)


@BOTH
def test_a_check_that_raises_ends_a_fetch_that_waits(
    flaky: Flaky,
    open_archive: Callable[..., DimseArchive],
    original: Any,
    tmp_path: Path,
    retrieve: str,
) -> None:
    class Leaving(Exception):
        pass

    flaky.silent_at = "retrieve"

    def check() -> None:
        if flaky.requests and flaky.requests[-1].startswith("C-"):
            raise Leaving

    archive = open_archive(retrieve)
    with pytest.raises(Leaving):
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", check)


def test_two_fetches_take_turns_at_the_port(
    flaky: Flaky,
    open_archive: Callable[..., DimseArchive],
    original: Any,
    tmp_path: Path,
) -> None:
    def run(number: int) -> tuple[Path, ...]:
        archive = open_archive("c-move")
        folder = tmp_path / f"got{number}"
        return archive.fetch(original.study_uid, original.series_uid, folder, _nothing)

    with ThreadPoolExecutor() as executor:
        for paths in executor.map(run, range(3)):
            original.assert_is(paths)


def test_a_turn_at_the_port_that_does_not_end_is_not_waited_for_without_end(
    flaky: Flaky,
    open_archive: Callable[..., DimseArchive],
    original: Any,
    tmp_path: Path,
    kept_log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class WaitsOnError(Exception):
        pass

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 1000:
            raise WaitsOnError

    checks = 0
    monkeypatch.setattr("pacs_bridge.sources.store_door._PORT_WAIT_S", 0.001)
    monkeypatch.setattr("pacs_bridge.sources.store_door._TURN_ATTEMPTS", 5, raising=False)
    archive = open_archive("c-move")
    turn = PortTurn("127.0.0.1", flaky.move_port)
    assert turn.take()
    try:
        with pytest.raises(TransientError) as caught:
            archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", check)
    finally:
        turn.give_back()
    assert caught.value.reason is Reason.CANNOT_LISTEN
    assert ("move-port-busy", {"source": "pacs", "port": flaky.move_port}) in kept_log.lines
    assert not any(each.startswith("C-MOVE") for each in flaky.requests)
    original.assert_is(
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
    )


def test_an_address_that_is_not_ours_cannot_be_opened(fetch: Callable[..., Any]) -> None:
    error = _error(fetch, "c-move", move_bind="192.0.2.1")
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.CANNOT_LISTEN


def test_an_archive_without_c_get_is_said(
    original: Any, kept_log: Any, tmp_path: Path, closing: ThreadPoolExecutor
) -> None:
    made = Flaky([pydicom.dcmread(path) for path in original.paths])
    ae = AE(ae_title="FLAKY")
    ae.add_supported_context(FIND)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, made.find)]
    )
    table = {
        "name": "pacs",
        "kind": "dimse",
        "ae_title": "FLAKY",
        "host": "127.0.0.1",
        "port": server.server_address[1],
    }
    config = DimseSourceConfig.model_validate_json(json.dumps(table))
    archive = DimseArchive(config, "PACSBRIDGE", kept_log, BriefRetry(lambda seconds: None))
    with pytest.raises(PermanentError) as refused:
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
    assert refused.value.reason is Reason.SOURCE_REFUSED
    closing.submit(server.shutdown)


@pytest.mark.parametrize("storage", [None, "1.2.840.10008.5.1.4.1.1.2.1"], ids=["none", "other"])
def test_an_archive_that_would_not_send_the_images_over_the_association_is_said(
    original: Any, kept_log: Any, tmp_path: Path, closing: ThreadPoolExecutor, storage: str | None
) -> None:
    made = Flaky([pydicom.dcmread(path) for path in original.paths])
    ae = AE(ae_title="FLAKY")
    for model in (FIND, GET):
        ae.add_supported_context(model)
    if storage is not None:
        ae.add_supported_context(storage, EXPLICIT, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, made.find), (evt.EVT_C_GET, made.get)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    table = {"name": "pacs", "kind": "dimse", "ae_title": "FLAKY", "host": "127.0.0.1"}
    config = DimseSourceConfig.model_validate_json(
        json.dumps(table | {"port": server.server_address[1]})
    )
    archive = DimseArchive(config, "PACSBRIDGE", kept_log, BriefRetry(lambda seconds: None))
    with pytest.raises(PermanentError) as refused:
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
    assert refused.value.reason is Reason.SOURCE_REFUSED
    assert "c-move" in refused.value.detail
    assert "C-GET" not in made.requests
    closing.submit(server.shutdown)


def test_a_rejected_association_may_be_put_right(
    flaky: Flaky, open_archive: Callable[..., DimseArchive], closing: ThreadPoolExecutor
) -> None:
    ae = AE(ae_title="STRICT")
    ae.require_called_aet = True
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    with pytest.raises(TransientError) as rejected:
        open_archive(port=server.server_address[1]).ask()
    assert rejected.value.reason is Reason.SOURCE_REFUSED
    assert "Called AE title" in rejected.value.detail
    with suppress(OSError):
        closing.submit(server.shutdown)


def test_a_port_that_a_foreign_program_has_is_said(
    flaky: Flaky, fetch: Callable[..., Any], original: Any, kept_log: Any
) -> None:
    with socket.create_server(("127.0.0.1", flaky.move_port)):
        error = _error(fetch, "c-move")
    assert isinstance(error, TransientError)
    assert error.reason is Reason.CANNOT_LISTEN
    assert ("move-port-taken", {"source": "pacs", "port": flaky.move_port}) in kept_log.lines
    original.assert_is(fetch("c-move"))
