"""When the names of what was received are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.receive.spool import Spool


def arrival_of(number: int, folder: Path) -> Arrival:
    landed = folder / f"{number}.part"
    landed.write_bytes(b"instance")
    return Arrival(
        association=AssociationRecord(1, "CT1", "BRIDGE", "10.0.0.1"),
        landed_path=landed,
        sop_instance_uid=f"1.2.3.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        patient_key="p",
        digest=f"digest{number}",
        data_offset_bytes=0,
        size_bytes=8,
        frame_count=1,
        expected_instances=None,
        facts=SeriesFacts(),
    )


@pytest.mark.parametrize("fate", [Fate.KEPT, Fate.CONFLICTING])
def test_the_folder_of_a_series_is_flushed_although_its_first_batch_was_undone(
    ram_folder, monkeypatch, fate
):
    flushed: list[Path] = []

    def note_and_flush(descriptor: int, flush=os.fsync) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note_and_flush)
    spool = Spool(ram_folder, ram_folder / "spool", ram_folder / "quarantine")
    undone = spool.placement()
    undone.place(arrival_of(1, ram_folder), fate)
    undone.undo()

    placement = spool.placement()
    path = placement.place(arrival_of(2, ram_folder), fate)
    placement.settle()
    folder = (ram_folder / path).parent
    assert set(flushed) == {folder, folder.parent}

    flushed.clear()
    later = spool.placement()
    later.place(arrival_of(3, ram_folder), fate)
    later.settle()
    assert flushed == [folder]
