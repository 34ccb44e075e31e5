"""The benchmarks' runner on its cheapest scripts; figures of tiny works are not looked at."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from inference.label_map import LabelMap

FOLDER = Path(__file__).parent


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the benchmarks, which import each other as scripts do."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("suite")
    for name in set(sys.modules) - before:
        if Path(str(getattr(sys.modules[name], "__file__", ""))).parent == FOLDER:
            del sys.modules[name]


def _run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / "run.py", "--quick", "--out", out, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_command_leaves_table_json_page_and_plot(tmp_path: Path) -> None:
    done = _run(tmp_path, "seg_writing", "cost_curve")

    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["quick"]
    assert record["failed"] == []
    assert {"cpu", "cores", "flags", "memory_gb", "libraries", "commit"} <= set(record["machine"])
    peers = {row["peer"] for row in record["rows"]}
    assert peers == {
        None, "highdicom-binary", "highdicom-labelmap-rle", "dcmqi-binary", "dcmqi-labelmap",
    }  # fmt: skip
    for row in record["rows"]:
        assert row["benchmark"] in done.stdout
        assert row["work"] in done.stdout
        assert row["ours"] > 0
        assert (row["ratio"] is None) == (row["peer"] is None)
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == len(record["rows"]) + 2
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_script_that_fails_is_named_and_the_others_go_on(
    suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = importlib.import_module("run")
    broken = suite.Benchmark("reading", "", "--no-such-option")
    works = suite.Benchmark("cost_curve", "", "--slices 12 --matrix 32 --runs 1")
    monkeypatch.setattr(run, "SUITE", (broken, works))
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--out", str(tmp_path)])

    with pytest.raises(SystemExit, match="failed: reading"):
        run.main()

    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["failed"] == ["reading"]
    assert [row["benchmark"] for row in record["rows"]] == ["cost curve"]
    assert "unrecognized arguments" in (tmp_path / "reading.log").read_text()


def test_a_run_in_parts_keeps_what_the_others_found(
    suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = importlib.import_module("run")
    curve = suite.Benchmark("cost_curve", "", "--slices 12 --matrix 32 --runs 1")
    broken = suite.Benchmark("reading", "", "--no-such-option")
    monkeypatch.setattr(run, "SUITE", (broken, curve))

    def call(*arguments: str) -> dict[str, object]:
        monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--out", str(tmp_path), *arguments])
        run.main()
        return json.loads((tmp_path / "bench.json").read_text())

    first = call("cost_curve")
    with pytest.raises(SystemExit, match="failed: reading"):
        call("reading", "--keep")
    both = json.loads((tmp_path / "bench.json").read_text())
    assert both["rows"] == first["rows"]
    assert [script["name"] for script in both["scripts"]] == ["reading", "cost_curve"]
    assert both["failed"] == ["reading"]

    machine = both["machine"] | {"cpu": "another"}
    (tmp_path / "bench.json").write_text(json.dumps(both | {"machine": machine}))
    with pytest.raises(SystemExit, match="2"):
        call("reading", "--keep")
    assert "of another machine" in capsys.readouterr().err


def test_an_unknown_benchmark_is_a_wrong_call(tmp_path: Path) -> None:
    done = _run(tmp_path, "nothing")
    assert done.returncode == 2
    assert "no benchmark nothing" in done.stderr


def test_every_script_is_in_the_suite(suite: ModuleType) -> None:
    scripts = {path.name for path in FOLDER.glob("bench_*.py")}
    assert {benchmark.script.name for benchmark in suite.SUITE} == scripts


def test_a_ratio_above_one_is_better_for_times_and_for_rates(suite: ModuleType) -> None:
    from row import Row, Unit, as_json, from_json

    time = Row("b", "w", Unit.SECONDS, 2.0, "peer", 6.0)
    rate = Row("b", "w", Unit.GFLOP_PER_SECOND, 6.0, "peer", 2.0, extrapolation="half of it")
    assert time.ratio == rate.ratio == 3.0
    assert from_json(as_json(time)) == time
    assert from_json(as_json(rate)) == rate
    share = Row("b", "w", Unit.SHARE, 0.0, "peer", 1.0, rounds=2)
    assert share.ratio is None
    assert from_json(as_json(share)) == share
    with pytest.raises(ValueError, match="no share"):
        Row("b", "w", Unit.SHARE, 1.1)
    with pytest.raises(ValueError, match="nothing was measured"):
        Row("b", "w", Unit.SECONDS, 0.0)
    with pytest.raises(ValueError, match="go together"):
        Row("b", "w", Unit.SECONDS, 1.0, "peer")


def test_a_comparison_says_which_side_wrote_empty_frames(suite: ModuleType, tmp_path: Path) -> None:
    import dcmqi_writer
    from bench_seg_writing import SPACING_MM, make_plan, unlike_frames, write_ours

    labels = np.zeros((5, 16, 16), np.uint8)
    labels[[1, 3], 4:8, 4:8] = 5  # in two pieces
    labels[2, 10:12] = 1
    dcmqi_writer.write_inputs(tmp_path, labels, SPACING_MM)
    dcmqi_writer.write(tmp_path, "binary", tmp_path / "its.dcm")
    placed = LabelMap(labels, make_plan(labels.shape).table.geometry())
    write_ours(placed, "binary", tmp_path / "binary.dcm")

    said = unlike_frames(tmp_path, "binary", "its")

    assert said == ", ours 3 frames (0 empty), its 4 frames (1 empty)"
    assert unlike_frames(tmp_path, "its", "its") == ""


def test_the_published_chain_that_cannot_finish_is_multiplied_and_says_so(
    suite: ModuleType, tmp_path: Path
) -> None:
    from bench_engine import Size, extrapolated
    from bench_peak import window_rows
    from engine_rows import engine_rows, shares_of_peak
    from row import Row, Unit

    def record(part: str, variant: str, seconds: float) -> dict[str, object]:
        of_it = {"s": seconds, "peak_gb": 1.0, "windows": 1, "rounds": 3}
        return {"part": part, "variant": variant} | of_it

    path = tmp_path / "engine.json"
    records = [
        ("windows", "published", 4.0),
        ("windows", "bf16-heap", 1.0),
        ("1.5mm", "bf16", 90.0),
    ]
    measured = [record(*each) for each in records]
    path.write_text(json.dumps(measured + extrapolated(measured, Size.full())))

    window, whole = engine_rows(path)
    assert (window.ratio, window.extrapolation) == (4.0, "")
    assert whole.theirs == 96 * 4.0
    assert whole.extrapolation.startswith("96 times one window")
    assert whole.theirs_peak_mb is None
    assert whole.work.endswith("1 windows, its 96")
    assert (window.rounds, whole.rounds) == (3, 3)

    peak = Row("machine", "matrix product bf16, 4096", Unit.GFLOP_PER_SECOND, 2000.0)
    published, ours = window_rows()
    (share,) = shares_of_peak([published, ours, peak, window, whole])
    assert published.ours - ours.ours == pytest.approx(2 * 32 * 105 * 96**3 / 1e9)  # 1 x 1 x 1
    assert share.ratio == ours.ours / 1.0 / 2000.0
