"""What a plan says of an archive, with exact counts by reason."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import zipfile
import zlib
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydicom import dcmread

from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.series import examine_series
from inference.reasons import Reason
from pacs_bridge.archive import planner as planner_module
from pacs_bridge.archive.accounts import series_lines
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planner import Planner
from pacs_bridge.archive.planning import _follow_rules
from pacs_bridge.archive.report_table import write_csv
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.errors import TransientError


def test_every_series_of_a_mixture_is_counted_by_its_reason(tree, plan_of):
    tree.fill(200)
    planned = plan_of(tree.root)
    assert planned.outcomes() == tree.expected
    assert planned.tally.series_examined == 200


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_series_of_ten_thousand_is_counted_by_its_reason(tree, plan_of):
    tree.fill(10_000)
    assert plan_of(tree.root).outcomes() == tree.expected


def test_planned_again_nothing_is_read_and_nothing_changes(tree, plan_of):
    tree.fill(30)
    first = plan_of(tree.root).outcomes()
    again = plan_of(tree.root)
    assert (again.tally.files_read, again.tally.series_examined) == (0, 0)
    assert again.outcomes() == first


def test_only_what_is_new_changed_or_gone_is_looked_at_again(tree, plan_of):
    for number in range(5):
        tree.add("run", f"s{number}")
    plan_of(tree.root)
    tree.add("run", "s5")
    tree.add("", "s0", range(12, 15), uid=1)
    for path in sorted((tree.root / "s1").iterdir())[:6]:
        path.unlink()
    changed = next((tree.root / "s2").iterdir())
    changed.write_bytes(changed.read_bytes() + b"\0\0")

    planned = plan_of(tree.root)

    assert planned.tally.files_read == 12 + 3 + 1
    assert planned.tally.series_examined == 4
    assert planned.outcomes() == {"run": 5, "too-few-slices": 1}


def test_a_series_that_is_split_over_folders_and_names_is_one(tree, plan_of):
    number = tree.add("run", "a/b", range(4))
    tree.add("", "c", range(4, 8), uid=number)
    tree.add("", "c/d/e", range(8, 12), uid=number)
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    with planned.plan.read() as connection:
        assert connection.execute("SELECT instances, planes FROM series").fetchone()[:] == (12, 12)


def test_the_same_instance_under_several_names_is_used_once_and_counted(tree, plan_of):
    number = tree.add("run", "a")
    tree.add("", "b", uid=number)
    tree.add("", "c", range(3), uid=number)
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"duplicate-instance": 15}


def test_other_bytes_of_one_instance_are_a_conflict_and_the_first_is_used(tree, plan_of):
    number = tree.add("run", "a")
    tree.add("", "b", range(2), uid=number, PixelSpacing="2\\2")
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"conflicting-instance": 2}


def test_two_patients_with_one_series_uid_do_not_run(tree, plan_of):
    number = tree.add("", "hospital1")
    tree.add("", "hospital2", range(20, 32), uid=number, PatientID="PID-1", PatientName="Roe^R",
             PatientBirthDate="19800202")  # fmt: skip
    assert plan_of(tree.root).outcomes() == {"mixed-identity": 1}


@pytest.mark.parametrize(
    ("outcome", "other"),
    [
        ("mixed-identity", {"PatientID": "PID-2"}),
        ("mixed-identity", {"PatientName": "Roe^R", "PatientBirthDate": "19800202"}),
        ("missing-identity", {"PatientID": ""}),
        ("run", {"PatientName": "Doe^Jane^Mary"}),
    ],
)
def test_instances_that_come_again_say_whose_the_series_is_too(tree, plan_of, outcome, other):
    number = tree.add(outcome, "hospital1")
    tree.add("", "hospital2", uid=number, **other)
    assert plan_of(tree.root).outcomes() == tree.expected
    examined = examine_series(sorted(path for path in tree.root.rglob("*") if path.is_file()))
    assert (examined.reason or "run") == outcome


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_file_that_was_named_itself_is_gone_where_the_folder_of_it_is_there(
    tree, plan_of, zip_tree, ram_folder, is_zip
):
    tree.add("run", "a")
    folder = tree.root / "a"
    roots = sorted(folder.iterdir())
    if is_zip:
        folder = ram_folder / "zips"
        folder.mkdir()
        roots = [folder / "all.zip"]
        zip_tree(tree.root, roots[0])
    assert plan_of(*roots).outcomes() == {"run": 1}
    away = folder.rename(folder.with_name("away"))
    assert plan_of(*roots).outcomes() == {"run": 1}
    folder.mkdir()
    assert plan_of(*roots).outcomes() == {"run": 1}
    folder.rmdir()
    away.rename(folder)
    (folder / "another").write_text("beside")
    for root in roots:
        root.unlink()
    assert plan_of(*roots).outcomes() == {"source-missing": 1}


def test_a_file_that_the_system_does_not_describe_refuses_the_series_that_it_lies_beside(
    tree, plan_of
):
    tree.add("run", "whole")
    (tree.root / "whole" / "empty").write_bytes(b"")
    tree.add("unreadable-file", "annexed", range(10, 30))
    for path in sorted((tree.root / "annexed").iterdir())[12:]:
        path.unlink()
        path.symlink_to(f"gone/{path.name}")
    assert plan_of(tree.root).outcomes() == tree.expected


def test_other_files_broken_links_and_pipes_are_counted_and_never_fatal(tree, plan_of):
    tree.add("run", "a")
    (tree.root / "notes.txt").write_text("nothing")
    (tree.root / "empty").write_bytes(b"")
    (tree.root / "slice.dcm").write_text("not what its name says")
    (tree.root / "nowhere").symlink_to("gone")
    (tree.root / "a" / "loop").symlink_to(tree.root)
    (tree.root / "DICOMDIR").write_bytes(b"whatever")
    os.mkfifo(tree.root / "pipe")
    os.link(tree.root / "notes.txt", os.fsencode(tree.root) + b"/\xff\xfe not text")

    planned = plan_of(tree.root)

    assert planned.outcomes() == {"run": 1}
    assert planned.files()["unreadable-file"] == 2
    assert planned.files()["no-dicom"] == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_read_is_counted_and_what_was_known_below_it_stays(
    tree, plan_of, ram_folder
):
    tree.add("run", "open")
    tree.add("run", "closed/below")
    ram_folder.chmod(0o777)
    (ram_folder / "run").chmod(0o777)
    for path in (ram_folder / "run").iterdir():
        path.chmod(0o666)
    plan_of(tree.root)
    (tree.root / "closed").chmod(0o700)
    os.seteuid(65534)
    try:
        planned = plan_of(tree.root)
    finally:
        os.seteuid(0)
    assert planned.outcomes() == {"run": 2}
    with planned.plan.read() as connection:
        rows = connection.execute("SELECT detail FROM folders WHERE reason IS NOT NULL").fetchall()
    assert [row[0] for row in rows] == ["Permission denied"]


def test_a_file_that_ends_too_early_refuses_its_series(tree, plan_of):
    tree.add("run", "whole")
    tree.add("", "cut")
    path = sorted((tree.root / "cut").iterdir())[-1]
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"1.2.826.0.1.3680043.8.498.1.") + 80])
    assert plan_of(tree.root).outcomes() == {"run": 1, "unreadable-file": 1}


def test_a_file_that_says_no_series_refuses_the_only_one_that_it_lies_beside(tree, plan_of):
    tree.add("run", "whole")
    tree.add("", "beside")
    damaged = tree.root / "beside" / "slice.dcm"
    damaged.write_bytes(bytes(200))
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1, "unreadable-file": 1}
    damaged.unlink()
    assert plan_of(tree.root).outcomes() == {"run": 2}
    damaged.write_bytes(bytes(200))
    assert plan_of(tree.root).outcomes() == {"run": 1, "unreadable-file": 1}


def test_a_tree_of_which_nothing_is_to_be_seen_stays_known(tree, plan_of):
    tree.add("run", "a/b")
    plan_of(tree.root)
    away = tree.root.rename(tree.root.with_name("away"))
    assert plan_of(tree.root).outcomes() == {"run": 1}
    tree.root.mkdir()
    assert plan_of(tree.root).outcomes() == {"run": 1}
    tree.root.rmdir()
    away.rename(tree.root)
    planned = plan_of(tree.root)
    assert (planned.outcomes(), planned.tally.files_read) == ({"run": 1}, 0)


def test_a_deflated_series_is_refused_by_its_uid_without_inflating_it(tree, plan_of):
    number = tree.add("", "deflated")
    for path in (tree.root / "deflated").iterdir():
        content = path.read_bytes()
        at = content.index(b"\x08\x00\x08\x00CS")
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        meta = content[:at].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
        meta = meta.replace(b"\x02\0\x10\0UI\x14\0", b"\x02\0\x10\0UI\x16\0")
        path.write_bytes(meta + packer.compress(content[at:]) + packer.flush())
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"unsupported-syntax": 1}
    with planned.plan.read() as connection:
        (uid,) = connection.execute("SELECT series FROM series").fetchone()
    assert uid.endswith(str(number))


def test_series_in_zip_files_are_planned_and_joined_with_those_outside(
    tree, plan_of, zip_tree, ram_folder
):
    number = tree.add("", "a", range(6))
    tree.add("", "b", range(6, 12), uid=number)
    tree.add("", "few", range(3))
    inside = ram_folder / "inside"
    inside.mkdir()
    for name in ("b", "few"):
        (tree.root / name).rename(inside / name)
    zip_tree(inside, tree.root / "deep.ZIP")

    planned = plan_of(tree.root)

    assert planned.outcomes() == {"run": 1, "too-few-slices": 1}
    assert plan_of(tree.root).tally.files_read == 0


def test_zip_files_that_are_damaged_or_mean_harm_are_counted_and_write_nothing(
    tree, plan_of, ram_folder
):
    tree.add("run", "a")
    (tree.root / "damaged.zip").write_bytes(b"PK\3\4 and no more")
    with zipfile.ZipFile(tree.root / "evil.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("../../../escaped.dcm", b"DICM" * 100)
        target.writestr("/absolute", b"x")
        target.writestr("bomb", bytes(200 << 20))
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    before = sorted(ram_folder.parent.glob("escaped*"))

    planned = plan_of(tree.root)

    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"no-dicom": 1, "unreadable-file": 3}
    assert sorted(ram_folder.parent.glob("escaped*")) == before
    with planned.plan.read() as connection:
        assert connection.execute("SELECT count(reason) FROM folders").fetchone()[0] == 1


def test_no_identity_of_a_patient_is_in_a_plan(tree, plan_of, ram_folder):
    tree.fill(20)
    plan_of(tree.root).plan.close()
    for path in (ram_folder / "run").iterdir():
        content = path.read_bytes()
        for word in (b"Doe", b"Roe", b"PID-1", b"19700101"):
            assert word not in content, path.name


class EndedExecutor(Executor):
    """Ends the planner at the first batch, as a kill does: between a listing and its headers."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt


def test_a_plan_that_is_killed_before_a_zip_file_is_read_reads_it_the_next_time(
    tree, plan_of, zip_tree, ram_folder
):
    tree.add("run", "a")
    zips = ram_folder / "zips"
    zips.mkdir()
    zip_tree(tree.root, zips / "all.zip")
    plan = PlanFile(ram_folder / "run")
    with pytest.raises(KeyboardInterrupt):
        Planner(plan, SeriesRules(), b"key", EndedExecutor()).take_in([zips])
    plan.close()
    assert plan_of(zips).outcomes() == {"run": 1}
    assert plan_of(zips).tally.files_read == 0


def test_other_rules_of_size_leave_series_of_zip_files_in_the_plan(
    tree, plan_of, zip_tree, ram_folder
):
    tree.add("run", "a")
    zips = ram_folder / "zips"
    zips.mkdir()
    zip_tree(tree.root, zips / "all.zip")
    planned = plan_of(zips)
    rules = replace(SeriesRules(), max_matrix=4)
    _follow_rules(planned.plan, rules)
    planned = plan_of(zips, rules=rules)
    assert (planned.outcomes(), planned.tally.files_read) == ({"too-large": 1}, 12)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_member_that_does_not_unpack_is_counted(tree, plan_of, method):
    tree.add("run", "a")
    path = tree.root / "bad.zip"
    with zipfile.ZipFile(path, "w", method) as target:
        target.writestr("slice", os.urandom(600))
    content = bytearray(path.read_bytes())
    content[60:120] = bytes(byte ^ 0x5A for byte in content[60:120])
    path.write_bytes(content)
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"unreadable-file": 1}


def test_times_and_sizes_that_no_disk_has_end_no_plan(tree, plan_of):
    tree.add("run", "a")
    os.utime(next((tree.root / "a").iterdir()), ns=(10**19, 10**19))
    path = tree.root / "vast.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a", b"x" * 100)
    content = path.read_bytes()
    at = content.index(b"PK\1\2")
    entry, name, end = bytearray(content[at : at + 46]), content[at + 46 : at + 47], bytearray(
        content[at + 47 :]
    )  # fmt: skip
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 2)
    struct.pack_into("<I", entry, 24, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<I", end, 12, 47 + len(extra))
    path.write_bytes(content[:at] + entry + name + extra + end)
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"unreadable-file": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_could_not_be_opened_is_read_when_it_can_be(tree, plan_of, ram_folder):
    tree.add("run", "a")
    path = max((tree.root / "a").iterdir())
    path.chmod(0)
    ram_folder.chmod(0o777)
    (ram_folder / "run").chmod(0o777)
    for each in (ram_folder / "run").iterdir():
        each.chmod(0o666)
    os.seteuid(65534)
    try:
        assert plan_of(tree.root).outcomes() == {"unreadable-file": 1}
    finally:
        os.seteuid(0)
    path.chmod(0o644)
    assert plan_of(tree.root).outcomes() == {"run": 1}


def test_a_link_to_a_folder_above_leads_nowhere(tree, plan_of):
    tree.add("run", "inside/a")
    (tree.root / "inside" / "up").symlink_to("..")
    tree.add("", "beside")
    planned = plan_of(tree.root / "inside")
    assert (planned.outcomes(), planned.tally.files_met) == ({"run": 1}, 12)


def test_a_series_that_was_to_run_and_whose_files_are_gone_stays_accounted_for(tree, plan_of):
    tree.add("run", "a")
    tree.add("run", "b")
    tree.add("localizer", "c", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")
    plan_of(tree.root)
    shutil.rmtree(tree.root / "b")
    shutil.rmtree(tree.root / "c")
    assert plan_of(tree.root).outcomes() == {"run": 1, "source-missing": 1}


def test_what_a_header_says_is_in_no_account_but_for_codes(tree, plan_of, tmp_path):
    tree.add("not-ct", "a", Modality="DOE JANE")
    tree.add("not-ct", "b", Modality="MR")
    tree.add("no-rescale", "c", RescaleType="DOE^JANE")
    plan = plan_of(tree.root).plan
    details = " ".join(line.detail for line in series_lines(plan))
    assert "DOE" not in details
    assert "Modality 'MR'" in details


def test_no_cell_of_a_table_is_a_formula(plan_of, tree, tmp_path):
    tree.add("run", "a")
    plan = plan_of(tree.root).plan
    with plan.write() as connection:
        connection.execute("UPDATE series SET series = '=1+1', study_instance_uid = '@x'")
    write_csv(series_lines(plan), tmp_path / "account.csv")
    (row,) = csv.DictReader((tmp_path / "account.csv").read_text().splitlines())
    assert (row["series_instance_uid"], row["study_instance_uid"]) == ("'=1+1", "'@x")


@pytest.fixture
def openings(monkeypatch) -> list[str]:
    """Names of the zip files that are opened, each time: their directory is read whole then."""
    opened: list[str] = []
    begin = ZipMembers.__init__

    def counted(self, path):  # type: ignore[no-untyped-def]
        opened.append(path.name)
        begin(self, path)

    monkeypatch.setattr(ZipMembers, "__init__", counted)
    return opened


@pytest.mark.parametrize("planes", [12, 48])
def test_duplicates_in_and_beside_a_zip_file_do_not_have_it_opened_for_each(
    tree, plan_of, zip_tree, openings, planes
):
    tree.add("run", "a", range(planes))
    zip_tree(tree.root / "a", tree.root / "b.zip")
    planned = plan_of(tree.root)
    assert planned.outcomes() == {"run": 1}
    assert planned.files() == {"duplicate-instance": planes}
    assert openings == ["b.zip"] * 3  # listed, read, compared


@pytest.mark.parametrize("planes", [12, 48])
def test_equal_planes_at_one_place_of_a_zip_file_are_compared_with_it_opened_once_more(
    tree, plan_of, zip_tree, openings, planes, ram_folder
):
    tree.add("", "a", range(planes))
    first = min((tree.root / "a").iterdir())
    content, uid = first.read_bytes(), str(dcmread(first).SOPInstanceUID).encode()
    (tree.root / "a" / "same-place").write_bytes(content.replace(uid, uid[:-5] + b"20000"))
    (tree.root / "a").rename(ram_folder / "inside")
    zip_tree(ram_folder / "inside", tree.root / "b.zip")
    assert plan_of(tree.root).outcomes() == {"run": 1}
    assert openings == ["b.zip"] * 3  # listed, read, its pixels compared


def test_a_large_zip_file_is_opened_no_oftener_than_a_small_one(
    tree, plan_of, openings, monkeypatch
):
    monkeypatch.setattr(planner_module, "_BATCH_FILES", 4)
    for count in (200, 400):
        with zipfile.ZipFile(tree.root / f"notes{count}.zip", "w") as target:
            for number in range(count):
                target.writestr(f"{number}.txt", f"note {number}")
        openings.clear()
        assert plan_of(tree.root).tally.files_read == count
        assert len(openings) <= 1 + 16 + 1


def test_a_full_disk_under_a_plan_is_told_and_leaves_no_slice_out(
    tree, plan_of, zip_tree, ram_folder, files_of_at_most
):
    tree.add("run", "a", range(10))
    tree.add("run", "b", range(10))
    for path in sorted(tree.root.rglob("*-*"))[::3]:
        path.write_bytes(path.read_bytes() + bytes(3 << 20))
    (ram_folder / "zips").mkdir()
    zip_tree(tree.root, ram_folder / "zips" / "all.zip")
    with files_of_at_most(2 << 20), pytest.raises(TransientError) as caught:
        plan_of(ram_folder / "zips")
    assert caught.value.reason is Reason.DISK_FULL
    assert plan_of(ram_folder / "zips").outcomes() == {"run": 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_folders_that_the_system_does_not_describe_stay_known(tree, plan_of, ram_folder):
    tree.add("run", "above/below/deep")
    ram_folder.chmod(0o777)
    (ram_folder / "run").chmod(0o777)
    for path in (ram_folder / "run").iterdir():
        path.chmod(0o666)
    plan_of(tree.root)
    (tree.root / "above").chmod(0o744)  # names can be read, and nothing else of what is there
    os.seteuid(65534)
    try:
        planned = plan_of(tree.root)
    finally:
        os.seteuid(0)
    assert planned.outcomes() == {"run": 1}
    with planned.plan.read() as connection:
        rows = connection.execute("SELECT detail FROM folders WHERE reason IS NOT NULL").fetchall()
    assert [row[0] for row in rows] == ["Permission denied"]


def test_a_zip_file_that_goes_while_it_is_planned_ends_no_plan(tree, plan_of, zip_tree, ram_folder):
    tree.add("", "a")
    tree.add("run", "c")
    zip_tree(tree.root / "a", tree.root / "b.zip")
    planned = plan_of(tree.root)
    with planned.plan.write() as connection:
        connection.execute("INSERT INTO unexamined SELECT series FROM series")
    (tree.root / "b.zip").unlink()
    with ThreadPoolExecutor(1) as executor:
        Planner(planned.plan, SeriesRules(), b"key", executor).examine()
    assert planned.outcomes() == {"run": 2}
    assert planned.files() == {"conflicting-instance": 12}
    assert plan_of(tree.root).files() == {}


def test_headers_of_files_that_changed_do_not_pile_up(tree, plan_of):
    tree.add("run", "a")
    for _ in range(3):
        for path in (tree.root / "a").iterdir():
            path.write_bytes(path.read_bytes() + bytes(2))
        plan = plan_of(tree.root).plan
    with plan.read() as connection:
        assert connection.execute("SELECT count(*) FROM parts").fetchone()[0] == 1


def test_files_that_lie_in_a_named_folder_itself_stay_known_while_its_disk_is_away(tree, plan_of):
    tree.add("run", ".")
    tree.add("too-few-slices", ".", range(3))
    before = plan_of(tree.root).outcomes()
    away = tree.root.rename(tree.root.with_name("away"))
    tree.root.mkdir()
    assert plan_of(tree.root).outcomes() == before
    tree.root.rmdir()
    away.rename(tree.root)
    planned = plan_of(tree.root)
    assert (planned.outcomes(), planned.tally.files_read) == (before, 0)


def test_files_that_are_gone_from_a_named_folder_which_holds_others_are_forgotten(tree, plan_of):
    tree.add("run", ".")
    plan_of(tree.root)
    for path in tree.root.iterdir():
        path.unlink()
    tree.add("run", "below")
    assert plan_of(tree.root).outcomes() == {"source-missing": 1, "run": 1}


def test_what_is_beside_a_series_is_looked_up_without_reading_all_files_of_its_folder(
    tree, plan_of
):
    tree.add("run", ".")
    (tree.root / "slice.dcm").write_bytes(bytes(200))
    plan, asked = plan_of(tree.root).plan, []
    tree.add("run", ".")
    with plan.read() as connection:
        connection.set_trace_callback(asked.append)
        plan_of(tree.root)
        connection.set_trace_callback(None)
        ways = [
            connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchone()["detail"]
            for each in asked
            if each.startswith("SELECT reason FROM files")
        ]
    assert len(ways) >= 2
    assert all("files_faulty" in way for way in ways)


def test_a_zip_file_whose_members_lie_beside_it_too_is_not_opened_for_each_of_its_series(
    tree, plan_of, zip_tree, ram_folder, openings
):
    for number in range(16):
        tree.add("run", f"{number}")
    both = ram_folder / "both"
    both.mkdir()
    zip_tree(tree.root, both / "all.zip")
    shutil.copytree(tree.root, both / "beside")
    planned = plan_of(both)
    assert planned.outcomes() == {"run": 16}
    assert planned.files() == {"duplicate-instance": 16 * 12}
    # listed, read, and compared for half of the series at a time
    assert openings == ["all.zip"] * 4
