"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("inference", "dicom_seg", "pacs_bridge", "training")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_that_is_imported_is_ours(package: str) -> None:
    # `inference` and `training` are common names: another distribution may bring them along.
    module = __import__(package)
    assert Path(module.__file__ or "").resolve().parent == ROOT / package


def _calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_pickles_are_read_where_models_are_imported_and_checkpoints_resumed_only() -> None:
    readers = {"torch.load", "pickle", "joblib", "dill", "marshal", "pickle.load", "pickle.loads"}
    found = {path.relative_to(ROOT).as_posix() for path in SOURCES if _calls(path) & readers}
    assert found == {"inference/model_import.py", "training/checkpoint.py"}


def test_no_reader_of_pickles_runs_code() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def test_no_bundle_is_ever_executed() -> None:
    for path in SOURCES:
        assert not any(name.startswith("monai.bundle") for name in _calls(path)), path


@pytest.mark.parametrize(
    "module",
    [
        "dicom_seg.segmentation",
        "dicom_seg.read.reader",
        "dicom_seg.verification",
        "pacs_bridge.config",
    ],
)
def test_modules_of_the_listener_and_the_dicom_side_start_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modules_are_small_and_named_by_a_noun() -> None:
    for path in SOURCES:
        assert path.stem not in {"utils", "helpers", "common", "misc", "base"}, path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_links_between_pages_lead_somewhere() -> None:
    pages = [
        page
        for page in ROOT.rglob("*.md")
        if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
    ]
    links = [
        (page, link)
        for page in pages
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith(("#", "mailto:"))
    ]
    assert len(links) > 10
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page, link in links
        if not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


def _pytest(folder: Path, code: str, **environment: str) -> str:
    """What a run of ``code`` as a test of this project says, without the shared data."""
    tests = folder / "checkout" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    (tests / "test_probe.py").write_text(code)
    variables = {name: value for name, value in os.environ.items() if "SHARED_DATA" not in name}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests],
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout


@pytest.mark.parametrize(
    ("environment", "outcome"),
    [({"CI": "true"}, "1 skipped"), ({"PACS_BRIDGE_REQUIRE_SHARED_DATA": "1"}, "1 error")],
    ids=["any CI", "where the series are required"],
)
def test_missing_real_series_are_a_failure_only_where_they_are_required(
    tmp_path: Path, environment: dict[str, str], outcome: str
) -> None:
    said = _pytest(tmp_path, "def test_one(shared_data): pass\n", **environment)
    assert outcome in said.splitlines()[-1]


def test_a_run_says_how_many_tests_did_not_run_and_why(tmp_path: Path) -> None:
    code = "import pytest\n" + "".join(
        f"def test_{number}(): {body}\n"
        for number, body in enumerate(["pass", "pytest.skip('no peer')", "pytest.skip('no peer')"])
    )
    lines = _pytest(tmp_path, code).splitlines()
    assert "2 tests did not run" in lines[-3]
    assert lines[-2].split() == ["2", "no", "peer"]
