"""When the names of what was received are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from arrivals import arrival_of

from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.receive.spool import Spool


def landed_arrival(number: int, folder: Path) -> Arrival:
    landed = folder / f"{number}.part"
    landed.write_bytes(b"instance")
    return arrival_of(number, landed_path=landed, data_offset_bytes=0, facts=SeriesFacts())


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
    undone.place(landed_arrival(1, ram_folder), fate)
    undone.undo()

    placement = spool.placement()
    path = placement.place(landed_arrival(2, ram_folder), fate)
    placement.settle()
    folder = (ram_folder / path).parent
    assert set(flushed) == {folder, folder.parent}

    flushed.clear()
    later = spool.placement()
    later.place(landed_arrival(3, ram_folder), fate)
    later.settle()
    assert flushed == [folder]
