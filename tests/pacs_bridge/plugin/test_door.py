"""From storescu to a Segmentation in the same study, through Orthanc and its plugin."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest

pytestmark = pytest.mark.pacs

BINARY = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: For a result, on a busy machine.
LIMIT_S = 240.0
Wait = Callable[..., None]
#: Within which Orthanc answers, whatever goes on: half of all calls on any machine, and 95 of 100
#: where the processor is not taken away meanwhile.
PROMPT_S = 0.2
#: How long a call of the plugin waits for the bridge.
BRIDGE_WAIT_S = 3.0
#: A call has about so many hand-overs between threads and processes as one of the yardstick. What
#: they take now is added to the limit of the 95 of 100, and of nothing else: a machine that runs
#: other tests meanwhile may not wake a thread for half a second, which is no lock of the plugin's.
_HAND_OVERS = 20


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Any], serving: Callable[..., Any]) -> Iterator[Any]:
    """An Orthanc with its plugin and a bridge, both running."""
    made = make_site()
    with serving(made.bridge_config):
        made.start()
        yield made
        made.kill()


@pytest.fixture(scope="module")
def done(site: Any, ct_series: Callable[..., Any], wait_for: Wait) -> Any:
    """A series that a scanner has sent, and whose results Orthanc has."""
    series = ct_series()
    site.store(series.paths)
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    return series


def test_both_kinds_appear_in_the_study_of_the_ct(site: Any, done: Any) -> None:
    results = site.results(done)
    assert {str(ds.SOPClassUID) for ds in results} == {BINARY, LABELMAP}
    assert {str(ds.StudyInstanceUID) for ds in results} == {done.study_uid}
    for ds in results:
        (referenced,) = ds.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == done.series_uid
        assert len(referenced.ReferencedInstanceSequence) == len(done.paths)


def test_the_state_of_a_series_is_told_by_orthanc(site: Any, done: Any) -> None:
    state = site.state(done)
    assert (state["series_instance_uid"], state["is_ct"]) == (done.series_uid, True)
    assert state["transfer"] is None
    (revision,) = state["bridge"]["revisions"]
    assert {each["state"] for each in revision["deliveries"]} == {"sent"}
    assert {each["destination"] for each in revision["deliveries"]} == {"label-maps", "bit-maps"}


def test_results_are_not_sent_to_the_bridge(site: Any, done: Any, wait_for: Wait) -> None:
    with site.web as web:
        study = {"StudyInstanceUID": done.study_uid}
        query = {"Level": "Series", "Query": study, "Expand": True}
        series = web.post("/tools/find", json=query).json()
        ids = {one["ID"]: one["MainDicomTags"]["Modality"] for one in series}
        assert sorted(ids.values()) == ["CT", "SEG", "SEG"]

        def stable() -> dict[str, int]:
            changes = web.get("/changes", params={"limit": 100_000}).json()["Changes"]
            return {c["ID"]: c["Seq"] for c in changes if c["ChangeType"] == "StableSeries"}

        wait_for(lambda: ids.keys() <= stable().keys(), LIMIT_S)
        wait_for(lambda: site.status()["position"] >= max(stable()[one] for one in ids), LIMIT_S)
        assert site.status()["transfers"] == {}
        resources = [job["Content"]["ParentResources"] for job in _stores(web)]
        sent = [one for one in resources if set(one) & ids.keys()]
        assert sent
        assert all(one == [site.id_of(done)] for one in sent)


def _stores(web: Any) -> list[dict[str, Any]]:
    return [
        job
        for job in web.get("/jobs", params={"expand": ""}).json()
        if job["Type"] == "DicomModalityStore"
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/pacs-bridge/no", 404, "unknown-route"),
        ("GET", "/pacs-bridge/series/" + "g" * 44, 404, "unknown-route"),
        ("GET", f"/pacs-bridge/series/{'0' * 44}", 404, "unknown-series"),
        ("POST", "/pacs-bridge/status", 400, "method"),
        ("GET", "/pacs-bridge/series/{ct}/start", 400, "method"),
        ("POST", "/pacs-bridge/series/{ct}/force", 409, "not-held"),
        ("POST", "/pacs-bridge/series/{ct}/retry", 409, "nothing-to-retry"),
        ("POST", "/pacs-bridge/series/{seg}/start", 409, "not-ct"),
        ("POST", "/pacs-bridge/series/{seg}/repeat", 404, "unknown-series"),
    ],
)
def test_what_cannot_be_done_is_said_as_json_with_a_code(
    site: Any, done: Any, method: str, path: str, status: int, reason: str
) -> None:
    with site.web as web:
        study = {"StudyInstanceUID": done.study_uid, "Modality": "SEG"}
        seg = web.post("/tools/find", json={"Level": "Series", "Query": study}).json()[0]
        answer = web.request(method, path.format(ct=site.id_of(done), seg=seg))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["reason"] == reason


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}]
)
def test_a_page_of_another_site_starts_nothing(
    site: Any, done: Any, headers: dict[str, str]
) -> None:
    with site.web as web:
        path = f"/pacs-bridge/series/{site.id_of(done)}"
        answer = web.post(f"{path}/start", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "cross-site")
        assert web.get(path, headers=headers).json()["transfer"] is None


def test_what_the_bridge_has_already_is_sent_again_and_not_segmented_again(
    site: Any, done: Any, wait_for: Wait
) -> None:
    before = site.state(done)["bridge"]["revisions"]
    results = {str(ds.SOPInstanceUID) for ds in site.results(done)}
    with site.web as web:
        known = set(web.get("/jobs").json())
        assert web.post(f"/pacs-bridge/series/{site.id_of(done)}/start").status_code == 200
        wait_for(lambda: site.status()["transfers"] == {}, LIMIT_S)
        jobs = [web.get(f"/jobs/{one}").json() for one in set(web.get("/jobs").json()) - known]
    assert [(job["Type"], job["State"]) for job in jobs] == [("DicomModalityStore", "Success")]
    assert site.state(done)["bridge"]["revisions"] == before
    assert {str(ds.SOPInstanceUID) for ds in site.results(done)} == results


def test_results_that_were_deleted_are_sent_again_on_demand(
    site: Any, done: Any, wait_for: Wait
) -> None:
    before = {str(ds.SOPInstanceUID) for ds in site.results(done)}
    with site.web as web:
        study = {"StudyInstanceUID": done.study_uid, "Modality": "SEG"}
        for one in web.post("/tools/find", json={"Level": "Series", "Query": study}).json():
            web.delete(f"/series/{one}")
        assert site.results(done) == []
        answer = web.post(f"/pacs-bridge/series/{site.id_of(done)}/repeat")
    assert (answer.status_code, answer.json()["state"]) == (200, "sending")
    wait_for(lambda: len(site.results(done)) == 2, LIMIT_S)
    assert {str(ds.SOPInstanceUID) for ds in site.results(done)} == before


def test_a_late_slice_gives_a_second_revision(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    series = ct_series()
    site.store(series.paths[:-1])
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    first = site.results(series)

    site.store(series.paths[-1:])

    wait_for(lambda: site.bridge_state(series) == ("sent", 2), LIMIT_S)
    known = {str(ds.SOPInstanceUID) for ds in first}
    later = [ds for ds in site.results(series) if str(ds.SOPInstanceUID) not in known]
    assert (len(first), len(later)) == (2, 2)
    for ds in later:
        referenced = {str(one.SeriesInstanceUID): one for one in ds.ReferencedSeriesSequence}
        assert len(referenced[series.series_uid].ReferencedInstanceSequence) == len(series.paths)


def test_a_picture_within_a_ct_series_stays_where_it_is(
    site: Any, ct_series: Callable[..., Any], tmp_path: Path, wait_for: Wait
) -> None:
    series = ct_series()
    picture = pydicom.dcmread(series.paths[0])
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    picture.SOPInstanceUID = picture.file_meta.MediaStorageSOPInstanceUID = "2.25.20261122"
    picture.save_as(tmp_path / "picture.dcm")
    site.store([*series.paths, tmp_path / "picture.dcm"])
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    with site.web as web:
        assert len(web.get(f"/series/{site.id_of(series)}").json()["Instances"]) == 13
    assert site.state(series)["bridge"]["instance_count"] == 12
    assert site.status()["transfers"] == {}


def test_an_image_that_the_bridge_refuses_keeps_no_other_from_it(
    site: Any, ct_series: Callable[..., Any], tmp_path: Path, wait_for: Wait
) -> None:
    series = ct_series()
    other = pydicom.dcmread(series.paths[5])
    other.WindowCenter = 123  # the same instance with other bytes: the first that came is kept
    other.save_as(tmp_path / "other.dcm")
    site.send_to_bridge([tmp_path / "other.dcm"])
    site.store(series.paths)

    wait_for(lambda: (site.state(series)["transfer"] or {}).get("stage") == "failed", LIMIT_S)
    transfer = site.state(series)["transfer"]
    assert transfer["reason"] == "store-partial"
    assert "0x0111" in transfer["detail"]
    wait_for(lambda: site.bridge_state(series)[0] == "sent", LIMIT_S)
    for ds in site.results(series):
        assert len(ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 12


def test_a_corrected_patient_is_not_shown_what_was_made_for_the_other(
    site: Any, ct_series: Callable[..., Any], tmp_path: Path, wait_for: Wait
) -> None:
    series = ct_series()
    site.store(series.paths)
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    with site.web as web:
        web.delete(f"/series/{site.id_of(series)}")
    corrected = []
    for number, path in enumerate(series.paths):
        ds = pydicom.dcmread(path)
        ds.PatientID = "CORRECTED"
        corrected.append(tmp_path / f"{number}.dcm")
        ds.save_as(corrected[-1])
    site.store(corrected)

    wait_for(lambda: (site.state(series)["transfer"] or {}).get("stage") == "failed", LIMIT_S)
    state = site.state(series)
    assert state["transfer"]["reason"] == "other-patient"
    assert set(state["bridge"]) == {"reason", "detail"}
    assert state["bridge"]["reason"] == "other-patient"
    with site.web as web:
        for action in ("force", "retry", "repeat"):
            answer = web.post(f"/pacs-bridge/series/{site.id_of(series)}/{action}")
            assert (answer.status_code, answer.json()["reason"]) == (409, "other-patient")


def test_orthanc_answers_at_once_while_a_series_is_segmented(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    series = ct_series(count=150, size=160)
    site.store(series.paths)
    wait_for(lambda: site.bridge_state(series)[0] in ("claimed", "sent"), LIMIT_S)
    began = time.monotonic()
    paths = ["/system", "/studies", f"/pacs-bridge/series/{site.id_of(series)}"]
    took_s: dict[str, list[float]] = {path: [] for path in paths}
    with site.web as web, _yardstick() as hand_over_s:
        while site.bridge_state(series)[0] == "claimed":
            for path in paths:
                took_s[path].append(_answer_s(web, path))
    inference_s = time.monotonic() - began
    limit_s = PROMPT_S + _HAND_OVERS * _p95(hand_over_s)
    with capsys.disabled():
        print(f"\nOrthanc's answers during an inference of {inference_s:.1f} s, ms:")
        for path, times in took_s.items():
            name = path.rpartition("series/")[0] or path
            median_ms, p95_ms = statistics.median(times) * 1e3, _p95(times) * 1e3
            print(
                f"  {name:22} {len(times):4} times, median {median_ms:5.1f}, p95 {p95_ms:5.1f},"
                f" max {max(times) * 1e3:5.1f}"
            )
        print(f"  limit of the p95 on this machine now: {limit_s * 1e3:.0f}")
    for times in took_s.values():
        assert len(times) >= 10
        assert statistics.median(times) < PROMPT_S
        assert _p95(times) < limit_s
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)


def _answer_s(web: Any, path: str) -> float:
    asked = time.monotonic()
    assert web.get(path).status_code == 200
    return time.monotonic() - asked


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20, method="inclusive")[-1]


@contextmanager
def _yardstick() -> Iterator[list[float]]:
    """How long this machine takes now, time and again, to wake a thread that wakes another."""
    here, there = socket.socketpair()
    took_s: list[float] = []
    is_over = threading.Event()

    def echo() -> None:
        while word := there.recv(1):
            there.sendall(word)

    def measure() -> None:
        while not is_over.wait(0.01):
            asked = time.monotonic()
            here.sendall(b"x")
            here.recv(1)
            took_s.append(time.monotonic() - asked)

    threads = [threading.Thread(target=echo), threading.Thread(target=measure)]
    for thread in threads:
        thread.start()
    try:
        yield took_s
    finally:
        is_over.set()
        threads[1].join()
        here.close()
        threads[0].join()
        there.close()


@contextmanager
def _bridge_that_hangs(port: int, drip: bytes) -> Iterator[None]:
    """Where a bridge should be: it says nothing, or a byte now and then of an answer."""
    is_over = threading.Event()
    callers: list[threading.Thread] = []

    def hang(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            for one in drip:
                if is_over.wait(0.2):
                    return
                caller.sendall(bytes([one]))
            is_over.wait()

    def accept() -> None:
        while not is_over.is_set():
            with suppress(TimeoutError):
                callers.append(threading.Thread(target=hang, args=(server.accept()[0],)))
                callers[-1].start()

    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            for each in [thread, *callers]:
                each.join()


@pytest.mark.parametrize(
    "drip", [b"", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000], ids=["silent", "dripping"]
)
def test_a_bridge_that_hangs_holds_its_own_callers_up_for_3_s_and_nobody_else(
    orthanc: Any, drip: bytes
) -> None:
    token = orthanc.folder / "data" / "control.token"
    token.parent.mkdir()
    token.write_text("a-token-of-more-than-16-characters")
    calls: list[tuple[float, Any]] = []

    def ask() -> None:
        asked = time.monotonic()
        with orthanc.web as web:
            said = web.get("/pacs-bridge/status").json()["bridge"]
        calls.append((time.monotonic() - asked, said))

    with _bridge_that_hangs(orthanc.control_port, drip):
        orthanc.start()
        callers = [threading.Thread(target=ask) for _ in range(4)]
        times = []
        with orthanc.web as web, _yardstick() as hand_over_s:
            for caller in callers:
                caller.start()
            while any(caller.is_alive() for caller in callers):
                times.append(_answer_s(web, "/system"))
                time.sleep(0.02)
        orthanc.kill()
    assert {said["reason"] for _, said in calls} == {"bridge-unreachable"}
    # What drips would go on for 200 s, what is silent for ever: a busy machine may take its time.
    assert max(took_s for took_s, _ in calls) < 4 * BRIDGE_WAIT_S
    assert _p95(times) < PROMPT_S + _HAND_OVERS * _p95(hand_over_s)
