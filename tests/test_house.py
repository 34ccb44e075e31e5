"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("inference", "dicom_seg", "pacs_bridge", "training")
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
