"""What ``doctor`` makes of the peers that a site has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pynetdicom import AE, evt

from pacs_bridge.checkup import CheckResult, Health, check_up
from pacs_bridge.config.bridge import BridgeConfig

VERIFICATION = "1.2.840.10008.1.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def checked(make_config: Callable[..., BridgeConfig]) -> Iterator[Callable[..., CheckResult]]:
    """Check a destination that supports these SOP classes and answers C-ECHO in its own way."""
    servers = []

    def run(*sop_classes: str, answer: Callable[[evt.Event], int] = lambda _: 0) -> CheckResult:
        ae = AE(ae_title="ARCHIVE")
        for sop_class in sop_classes:
            ae.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_ECHO, answer)]
        servers.append(ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers))
        port = servers[-1].server_address[1]
        config = make_config(
            destinations='[{ name = "archive", ae_title = "ARCHIVE", host = "127.0.0.1",'
            f" port = {port} }}]"
        )
        (found,) = [one for one in check_up(config) if one.subject == "destination archive"]
        return found

    yield run
    for server in servers:
        server.shutdown()


def test_a_destination_that_answers_is_good(checked: Callable[..., CheckResult]) -> None:
    found = checked(VERIFICATION, SEGMENTATION)
    assert (found.health, found.detail) == (Health.GOOD, "C-ECHO succeeded; accepts binary")


def test_a_failed_c_echo_is_bad_whatever_is_accepted(
    checked: Callable[..., CheckResult],
) -> None:
    found = checked(VERIFICATION, SEGMENTATION, answer=lambda _: 0x0110)
    assert found.health is Health.BAD
    assert "C-ECHO failed: status 0110H; accepts binary" in found.detail


def test_a_peer_that_hangs_up_on_c_echo_is_bad(checked: Callable[..., CheckResult]) -> None:
    def hang_up(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    found = checked(VERIFICATION, SEGMENTATION, answer=hang_up)
    assert found.health is Health.BAD
    assert "no answer" in found.detail


def test_a_destination_without_verification_is_judged_by_what_it_takes(
    checked: Callable[..., CheckResult],
) -> None:
    assert checked(SEGMENTATION).health is Health.GOOD
    found = checked(VERIFICATION)
    assert (found.health, "none of the kinds" in found.detail) == (Health.BAD, True)


def test_sources_and_web_destinations_that_cannot_be_reached_are_bad(
    make_config: Callable[..., BridgeConfig],
) -> None:
    config = make_config(
        destinations='[{ name = "archive", url = "http://127.0.0.1:1/dicom-web" }]',
        sources='[{ name = "vna", kind = "dicomweb", url = "http://127.0.0.1:1" },'
        ' { name = "pacs", kind = "dimse", ae_title = "PACS", host = "127.0.0.1", port = 1 },'
        ' { name = "run", kind = "plan", folder = "nowhere" }]',
    )
    found = {each.subject: each for each in check_up(config)}
    for subject in ("destination archive", "source vna", "source pacs", "source run"):
        assert found[subject].health is Health.BAD, subject
