"""The account as tables: a row a series, as CSV and as Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pacs_bridge.archive.accounts import SeriesLine
from pacs_bridge.archive.cost import MachineCost
from pacs_bridge.stopwatch import Stage

_ROWS_AT_ONCE: Final = 10_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_TEXT: Final = (
    *("series_instance_uid", "study_instance_uid", "source", "state", "reason", "detail"),
    *("findings", "result", "model", "model_digest", "precision", "ended_at"),
)
_COUNTS: Final = (
    *("number", "instances", "planes", "source_bytes", "outputs", "output_bytes"),
    *("structures", "peak_memory_bytes"),
)
_SECONDS: Final = tuple(f"{stage}_s" for stage in Stage)
_COSTS: Final = (*(f"{stage}_cost" for stage in Stage), "all_cost")


class ParquetMissingError(Exception):
    """The library that writes Parquet is not installed."""


def write_csv(lines: Iterable[SeriesLine], path: Path, cost: MachineCost | None = None) -> None:
    """Write the account as CSV with a header line; with a cost, that of each stage as well.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*_COUNTS, *_TEXT, *_figures(cost)))
        writer.writeheader()
        for line in lines:
            writer.writerow({name: _cell(value) for name, value in _record(line, cost).items()})


def _cell(value: Any) -> Any:
    """A value as a spreadsheet shows it: a text is never a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def write_parquet(lines: Iterable[SeriesLine], path: Path, cost: MachineCost | None = None) -> None:
    """Write the account as Parquet, a piece at a time; the columns are those of the CSV file.

    Raises
    ------
    ParquetMissingError
        If pyarrow is not installed.
    OSError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ParquetMissingError("Parquet needs pyarrow: pip install pyarrow") from error
    schema = pa.schema(
        [(name, pa.int64()) for name in _COUNTS]
        + [(name, pa.string()) for name in _TEXT]
        + [(name, pa.float64()) for name in _figures(cost)]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _pieces(lines, cost):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _figures(cost: MachineCost | None) -> tuple[str, ...]:
    return _SECONDS if cost is None else (*_SECONDS, *_COSTS)


def _pieces(
    lines: Iterable[SeriesLine], cost: MachineCost | None
) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(lines)
    while rows := [_record(line, cost) for line in islice(waiting, _ROWS_AT_ONCE)]:
        yield rows


def _record(line: SeriesLine, cost: MachineCost | None) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(line, name) for name in (*_COUNTS, *_TEXT)}
    record["findings"] = " ".join(line.findings)
    record |= {f"{stage}_s": line.seconds.get(stage) for stage in Stage}
    if cost is not None:
        costs = cost.by_stage(line.seconds) if line.seconds else {}
        record |= {name: costs.get(name.removesuffix("_cost")) for name in _COSTS}
    return record
