"""How long a destination that failed is left alone."""

from __future__ import annotations

from pacs_bridge.deliver.gate import Gate
from pacs_bridge.retry_policy import RetryPolicy


def test_a_destination_is_left_alone_for_longer_at_each_failure_and_as_long_as_it_asks() -> None:
    gate = Gate(RetryPolicy(10.0, 100.0, 3600.0))

    assert gate.failed(0.0) == 10.0
    assert gate.failed(10.0) == 20.0
    assert gate.failed(30.0, at_least_s=600.0) == 600.0
    assert not gate.is_open(629.0)
    assert gate.is_open(630.0)
    gate.succeeded()
    assert gate.is_open(0.0)
    assert gate.failed(700.0, at_least_s=1.0) == 10.0
