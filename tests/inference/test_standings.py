"""Leads in a byte."""

from __future__ import annotations

import numpy as np

from inference.standings import lead_codes, leads, ranked


def test_leads_come_back_within_half_a_step() -> None:
    wanted = np.concatenate([np.linspace(0, 1, 200), np.geomspace(1, 250, 200)])

    kept = leads(lead_codes(wanted))

    assert kept.dtype == np.float32
    # neighbouring codes are sqrt(lead) / 8 apart
    assert (np.abs(kept - wanted) <= np.sqrt(wanted) / 16 + 1 / 1024 + 1e-6).all()
    assert kept[0] == 0
    assert (np.diff(kept) >= 0).all()


def test_a_lead_beyond_the_last_code_is_the_largest() -> None:
    assert leads(lead_codes([1e4]))[0] > 250


def test_a_voxel_that_is_its_own_runner_up_was_not_ranked() -> None:
    standings = np.array([[0, 0, 0, 0], [7, 7, 0, 0], [7, 0, 0, 0], [0, 3, 9, 9]], dtype=np.uint8)

    np.testing.assert_array_equal(ranked(standings), [False, False, True, True])
