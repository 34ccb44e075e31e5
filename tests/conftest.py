"""Fixtures that every package's tests share, and what a run says of tests that did not run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
#: Set where the real series are part of the bargain: then their absence is a failure.
SHARED_DATA_REQUIRED = "PACS_BRIDGE_REQUIRE_SHARED_DATA"


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20261121)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real series beside the checkout."""
    if not SHARED_DATA.is_dir():
        if os.environ.get(SHARED_DATA_REQUIRED):
            pytest.fail("the real series are not beside this checkout")
        pytest.skip("the real series are not beside this checkout")
    return SHARED_DATA


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say last how many tests did not run, and why: a skipped test proves nothing."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section(f"{reasons.total()} tests did not run", yellow=True)
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5}  {reason}")
