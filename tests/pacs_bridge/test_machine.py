"""Which machine this is."""

from __future__ import annotations

from pacs_bridge.machine import Machine


def machine(host: str = "a", machine_id: str = "1", boot_id: str = "x") -> Machine:
    return Machine(host, machine_id, boot_id)


def test_the_id_of_the_machine_outlives_its_boots_and_is_shown_to_nobody(tmp_path):
    path = tmp_path / "machine-id"
    path.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")

    first, second = Machine.here("x", path), Machine.here("y", path)

    assert first.machine_id == second.machine_id
    assert path.read_text().strip() not in first.machine_id
    assert first.is_start_of(second)


def test_where_there_is_no_id_nothing_but_the_boot_is_known(tmp_path):
    path = tmp_path / "machine-id"
    for text in (None, "", "uninitialized\n"):
        if text is not None:
            path.write_text(text)
        here = Machine.here("x", path)
        assert here.machine_id == ""
        assert here.is_start_of(Machine.here("x", path))
        assert not here.is_start_of(Machine.here("y", path))


def test_a_copied_machine_is_told_from_its_original_by_its_name():
    assert not machine(boot_id="y").is_start_of(machine(host="b"))
    assert not machine(boot_id="y").is_start_of(machine(machine_id="2"))
    assert machine(host="container").is_start_of(machine(host="b", machine_id=""))
