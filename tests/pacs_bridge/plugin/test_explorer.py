"""The button in Orthanc Explorer: what its script shows and has done, run by a JavaScript engine.

The page is an imitation; what the script is told comes from the real ends of both REST interfaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import dukpy
import pytest
from arrivals import SERIES as SERIES_UID
from arrivals import NoShelf, arrival_of

from inference.reasons import Reason
from pacs_bridge.control.routes import Routes as ControlRoutes
from pacs_bridge.control.routes import Whose
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.announcements import Announcement
from pacs_bridge.ledger.associations import AssociationEnd, AssociationOutcome
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.series import Verdict
from pacs_bridge.plugin import routes as plugin_routes
from pacs_bridge.plugin.bridge_client import BridgeAnswer
from pacs_bridge.plugin.identity import Identity
from pacs_bridge.plugin.notes import Note, NoteBook, Stage
from pacs_bridge.plugin.routes import Routes
from pacs_bridge.plugin.server import OrthancServer
from pacs_bridge.queue import JobRequest, State

SCRIPT = Path(plugin_routes.__file__).with_name("data") / "explorer.js"
IMITATION = Path(__file__).with_name("explorer_page.js")
SERIES = "0" * 44
CT = "1.2.840.10008.5.1.4.1.1.2"


class Page:
    """A page of Orthanc Explorer with the script."""

    def __init__(self) -> None:
        self._engine = dukpy.JSInterpreter()
        self._engine.evaljs([IMITATION.read_text(), SCRIPT.read_text(), "null"])

    def do(self, what: str, *values: object) -> Any:
        arguments = ", ".join(map(json.dumps, values))
        return self._engine.evaljs(f"page.{what}({arguments}) || null")

    def show(self, body: object, status: int = 200) -> dict[str, Any]:
        """What is shown of a series when this is what the script is answered."""
        self.do("open", SERIES)
        self.do("answer", status, json.dumps(body))
        return dict(self.do("shown"))


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def ledger(ram_folder: Path, clock: Any) -> Iterator[Ledger]:
    made = Ledger.open(ram_folder / "ledger.sqlite", clock)
    yield made
    made.close()


class _Bridge:
    """The bridge's own answers, without HTTP."""

    def __init__(self, ledger: Ledger) -> None:
        self.routes = ControlRoutes(ledger, IdentityHash(b"test"))

    def series(self, identity: Identity) -> BridgeAnswer:
        return self._ask("GET", f"/series/{identity.series_uid}")

    def steer(self, identity: Identity, action: str) -> BridgeAnswer:
        return self._ask("POST", f"/series/{identity.series_uid}/{action}")

    def _ask(self, method: str, path: str) -> BridgeAnswer:
        answer = self.routes.answer(method, path, {}, Whose())
        return BridgeAnswer(answer.status, json.loads(json.dumps(answer.body)))


@pytest.fixture
def call(scripted: Any, ledger: Ledger, notes: NoteBook) -> Callable[[str, str], tuple[int, str]]:
    """Makes the script's calls as Orthanc does, from the page at which it stands."""
    scripted.hold(SERIES, [CT])
    scripted.answers[f"/series/{SERIES}"]["MainDicomTags"]["SeriesInstanceUID"] = SERIES_UID
    bridge: Any = _Bridge(ledger)
    routes = Routes(OrthancServer(scripted), notes, bridge, lambda: None, dict, lambda: 0.0)

    def make(method: str, url: str) -> tuple[int, str]:
        path = urlsplit(urljoin("http://orthanc/app/explorer.html", url)).path
        assert path.startswith("/pacs-bridge/")
        answer = routes.answer(method, path.removeprefix("/pacs-bridge/"), {})
        return answer.status, json.dumps(answer.body)

    return make


def _receive(ledger: Ledger, count: int = 3) -> None:
    ledger.instances.enter([arrival_of(number) for number in range(count)], NoShelf())
    ledger.associations.end([AssociationEnd(1, AssociationOutcome.RELEASED, 1)])


def _held(ledger: Ledger) -> None:
    ledger.series.expect(Announcement(SERIES_UID, 10))
    _receive(ledger)
    (revision,) = ledger.series.open_revisions()
    verdict = Verdict(State.INCOMPLETE, Reason.INCOMPLETE, "3 of 10 instances here")
    assert ledger.series.conclude(revision, verdict)


def _skipped_without_a_job(ledger: Ledger) -> None:
    _receive(ledger)
    (revision,) = ledger.series.open_revisions()
    assert ledger.series.conclude(revision, Verdict(State.SKIPPED, Reason.NOT_SELECTED, "no route"))


def _dead(ledger: Ledger) -> None:
    _receive(ledger)
    (revision,) = ledger.series.open_revisions()
    job = JobRequest(SERIES_UID, 1, "all", "tiny", ("archive",))
    assert ledger.series.conclude(revision, Verdict(State.READY, job=job))
    claim = ledger.jobs.claim("w", 60)
    assert claim is not None
    ledger.jobs.park(claim, Reason.MODEL_ERROR, "not finite")


@pytest.mark.parametrize(
    ("happens", "words", "button", "action", "after"),
    [
        (lambda _: None, "not segmented", "Segment this series", "start", "waiting"),
        (_held, "3 of 10 instances", "Go on without what is missing", "force", "quiet"),
        (_skipped_without_a_job, "skipped", "Look at it again, as it is", "force", "quiet"),
        (_dead, "dead, revision 1 (model-error: not finite)", "Try again", "retry", "ready"),
    ],
    ids=["nothing", "held", "skipped", "dead"],
)
def test_the_button_does_what_can_be_done(
    page: Page, ledger: Ledger, call: Any, happens: Any, words: str, button: str, action: str,
    after: str,
) -> None:  # fmt: skip
    happens(ledger)
    page.do("open", SERIES)
    page.do("answer", *call("GET", page.do("call")["url"]))
    shown = page.do("shown")
    assert words in shown["words"]
    assert (shown["is_shown"], shown["button"]) == (True, button)

    page.do("press")

    made = page.do("call")
    assert made["type"] == "POST"
    assert made["url"].endswith(f"/{SERIES}/{action}")
    status, body = call("POST", made["url"])
    assert status == 200, body
    page.do("answer", status, body)
    page.do("answer", *call("GET", page.do("call")["url"]))  # the state is asked for at once
    assert after in page.do("shown")["words"]
    assert page.do("shown")["alerts"] == []


def test_of_what_is_on_its_way_the_stage_is_told_and_nothing_can_be_done(
    page: Page, call: Any, notes: NoteBook
) -> None:
    waiting = Note(SERIES, 0.0, Stage.WAITING, attempts=2, reason="store-failed")
    for note, words in [
        (waiting, "waiting (store-failed, attempt 3)"),
        (Note(SERIES, 0.0, Stage.SENDING), "sending"),
    ]:
        notes.put(note)
        shown = page.show(json.loads(call("GET", f"../pacs-bridge/series/{SERIES}")[1]))
        assert words in shown["words"]
        assert shown["button"] is None
    notes.put(Note(SERIES, 0.0, Stage.FAILED, reason="store-partial"))
    shown = page.show(json.loads(call("GET", f"../pacs-bridge/series/{SERIES}")[1]))
    assert shown["words"].startswith("Segmentation: not sent: store-partial")
    assert shown["button"] == "Segment this series"


def test_a_part_that_waits_for_the_rest_can_go_on_without_it(
    page: Page, ledger: Ledger, call: Any, notes: NoteBook
) -> None:
    _held(ledger)
    for stage, button in [(Stage.SENDING, None), (Stage.WAITING, "Go on without what is missing")]:
        notes.put(Note(SERIES, 0.0, stage))
        shown = page.show(json.loads(call("GET", f"../pacs-bridge/series/{SERIES}")[1]))
        assert "there: incomplete (3 of 10 instances here)" in shown["words"]
        assert shown["button"] == button


@pytest.mark.parametrize("state", State)
def test_every_state_is_shown_and_a_button_is_one_of_a_call_that_exists(
    page: Page, state: State
) -> None:
    bridge = {
        "state": state, "revision": 1, "reason": None, "detail": "", "revisions": [{"job_id": 7}],
    }  # fmt: skip
    shown = page.show({"is_ct": True, "transfer": None, "bridge": bridge})
    assert shown["words"] == f"Segmentation: {state}, revision 1"
    page.do("press")
    calls = [page.do("call")] if shown["button"] else []
    path = "".join(one["url"].removeprefix("../pacs-bridge/") for one in calls)
    assert not calls or plugin_routes._SERIES.fullmatch(path)
    can_go_on = (State.DEAD, State.SKIPPED, State.RETRY, State.INCOMPLETE)
    assert (shown["button"] is not None) == (state in (*can_go_on, State.SENT, State.COMMITTED))


def test_of_what_is_not_ct_nothing_is_shown(page: Page) -> None:
    body = {"is_ct": False, "transfer": None, "bridge": {"reason": "unknown-series"}}
    assert page.show(body)["is_shown"] is False


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"reason": "not-configured", "detail": "no Modality"}', "not-configured: no Modality"),
        ('{"reason": "leaving", "detail": ""}', "leaving"),
        ("<html>", "no answer"),
        ("", "no answer"),
    ],
)
def test_a_refusal_is_told_and_leaves_nothing_to_press(page: Page, body: str, words: str) -> None:
    page.do("open", SERIES)
    page.do("answer", 503, body)
    shown = page.do("shown")
    assert shown["words"] == f"Segmentation: {words}"
    assert (shown["is_shown"], shown["button"]) == (True, None)


def test_an_action_that_is_refused_is_told_at_once(page: Page) -> None:
    page.show({"is_ct": True, "transfer": None, "bridge": {"reason": "unknown-series"}})
    page.do("press")
    page.do("answer", 409, '{"reason": "not-ct", "detail": "its modality is not CT"}')
    assert page.do("shown")["alerts"] == ["PACS Bridge: not-ct: its modality is not CT"]


def test_a_bridge_that_cannot_be_reached_is_told_and_the_series_can_be_sent(page: Page) -> None:
    bridge = {"reason": "bridge-unreachable", "detail": "127.0.0.1:8043: timeout"}
    shown = page.show({"is_ct": True, "transfer": None, "bridge": bridge})
    assert shown["words"] == "Segmentation: bridge-unreachable"
    assert shown["button"] == "Segment this series"


@pytest.mark.parametrize("status", [200, 503])
def test_what_comes_late_of_one_series_is_not_shown_at_another(page: Page, status: int) -> None:
    page.do("open", SERIES)
    page.do("close")
    other = "1" * 44
    page.do("open", other)
    page.do("answer", 200, '{"is_ct": false}')
    body = {"is_ct": True, "transfer": None, "bridge": {"reason": "unknown-series"}}
    page.do("answer", status, json.dumps(body))  # of the first
    assert page.do("shown")["is_shown"] is False
    page.do("press")
    assert page.do("call") is None


def test_a_page_that_is_left_asks_no_more_and_one_that_is_entered_again_asks_once(
    page: Page,
) -> None:
    for _ in range(3):
        page.do("open", SERIES)
    assert page.do("shown")["timers"] == 1
    count = page.do("call")["count"]
    page.do("poll")
    assert page.do("call")["count"] == count + 1
    page.do("close")
    page.do("poll")
    assert page.do("call")["count"] == count + 1
    assert page.do("shown")["timers"] == 0
    assert page.do("shown")["is_shown"] is False
