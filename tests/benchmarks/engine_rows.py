"""Rows of the benchmarks of the engine and of ``segment``, and the share of the machine's peak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench_peak import BENCHMARK, BODY_WORK, PRODUCT
from row import Row, Unit

WORKS = {
    "windows": "one window of 96^3",
    "3mm": "144 x 144 x 199, 3 mm",
    "1.5mm": "287 x 287 x 397, 1.5 mm",
    "body-3mm": "a patient, 512 x 512 x 397, labelled at 3 mm",
    "body-1.5mm": "a patient, 512 x 512 x 397, labelled at 1.5 mm",
}
PUBLISHED, NETWORK_ALONE = "MONAI, fp32", ", network alone"


def engine_rows(path: Path) -> list[Row]:
    """Of ``bench_engine.py --json``; a patient is held against the published network alone."""
    records = json.loads(path.read_text())
    published = {each["part"]: each for each in records if each["variant"] == "published"}
    rows = []
    for record in records:
        if record["variant"] == "published":
            continue
        part = record["part"]
        peer = published.get(part.removeprefix("body-"))
        rows.append(
            Row(
                "engine",
                f"{WORKS.get(part, part)}, {record['variant']}{windows_of(record, peer)}",
                Unit.SECONDS,
                record["s"],
                f"{PUBLISHED}{NETWORK_ALONE * (part != peer['part'])}" if peer else None,
                peer["s"] if peer else None,
                1000 * record["peak_gb"],
                1000 * peer["peak_gb"] if peer and peer["peak_gb"] else None,
                peer.get("extrapolation", "") if peer else "",
                record["rounds"],
            )
        )
    return rows


def windows_of(record: dict[str, object], peer: dict[str, object] | None) -> str:
    """How many windows both sides of a whole scan computed."""
    if record["part"] == "windows":
        return ""
    its = f", its {peer['windows']}" if peer else ""
    return f", {record['windows']} windows{its}"


def segment_rows(path: Path) -> list[Row]:
    """Of ``bench_segment.py --json``: nobody else does the whole of it."""
    return [
        Row(
            "segment",
            f"{record['slices']} slices, {record['volume_gb']:.2g} GB of int16,"
            f" DICOM to {record['kinds']}",
            Unit.SECONDS,
            record["total_s"],
            ours_peak_mb=1000 * record["peak_gb"],
            rounds=1,
        )
        for record in json.loads(path.read_text())
    ]


def shares_of_peak(rows: Sequence[Row]) -> list[Row]:
    """How near to the machine's own matrix product each variant of a window came.

    Operations are those that the variant did: the last layer is not among them.
    """
    operations = next((row.ours for row in rows if row.work == BODY_WORK), None)
    products = {
        row.work.removeprefix(PRODUCT).split(",")[0].strip(): row
        for row in rows
        if row.benchmark == BENCHMARK and row.work.startswith(PRODUCT)
    }
    found = []
    for row in rows:
        if operations is None or row.benchmark != "engine" or WORKS["windows"] not in row.work:
            continue
        variant = row.work.removeprefix(f"{WORKS['windows']}, ")
        product = products.get(variant.split("-")[0])
        if product is not None:
            figures = (operations / row.ours, product.work, product.ours)
            work = f"network on one window, {variant}"
            found.append(Row(BENCHMARK, work, Unit.GFLOP_PER_SECOND, *figures))
    return found
