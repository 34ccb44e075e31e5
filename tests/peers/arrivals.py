"""Instances as the listener tells the ledger of them, with what tests of the ledger need."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.facts import SeriesFacts

SERIES = "1.2.3"


def arrival_of(number: object, association: int = 1, **changes: object) -> Arrival:
    """An image of the series ``SERIES``; ``changes`` are fields in place of the usual ones."""
    arrival = Arrival(
        association=AssociationRecord(association, "CT1", "BRIDGE", "10.0.0.1"),
        landed_path=Path("landed"),
        sop_instance_uid=f"{SERIES}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=SERIES,
        study_instance_uid="1.2",
        patient_key="p",
        digest=f"digest{number}",
        data_offset_bytes=300,
        size_bytes=len(b"instance"),
        frame_count=1,
        expected_instances=None,
        facts=SeriesFacts(modality="CT"),
    )
    return dataclasses.replace(arrival, **changes)


class NoShelf:
    """A ``Placer`` that moves no files, for who does not look at them."""

    def place(self, arrival: Arrival, _fate: Fate) -> str:
        return arrival.digest

    def settle(self) -> None:
        return
