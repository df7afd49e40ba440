"""Reading a table from a file, and writing one back.

Delimited text is read as text and then narrowed: each column takes the first type that every one of its cells has.
The whole column decides, not a first sample, so a letter in the last row cannot be a surprise.
Parquet and NumPy archives carry their types with them, and those are kept.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars
import polars.selectors as selectors

from lastlayer.checks import DataFileError
from lastlayer.files import write_whole

READABLE = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npz")
WRITABLE = (".csv", ".parquet")
MISSING_SPELLINGS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")

_THOUSANDS = r"^[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_DATETIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"
_DATETIME_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")

# What NumPy and polars raise for damaged content. PanicException is no Exception, and would pass an `except Exception`.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    zlib.error,
    zipfile.BadZipFile,
    polars.exceptions.PolarsError,
    polars.exceptions.PanicException,
)


def read_table(path: str | os.PathLike[str], *, thousands: bool = False) -> polars.DataFrame:
    """The table in a file, with typed columns and null for every missing cell.

    Files: ``.csv``, ``.tsv`` (both also ``.gz``; UTF-8; a header row), ``.parquet``, ``.npz``.
    Text: surrounding spaces are removed from names and cells; the spellings in ``MISSING_SPELLINGS`` are missing cells;
    a column becomes integer, float, boolean (true/false), ISO date or ISO datetime if every filled cell is one.
    Moments with an offset from UTC become UTC. Lines without any cell are skipped.
    ``thousands=True`` also takes "1,234" for a number; without it such a column stays text.
    A ``.csv`` whose header has semicolons and no comma is separated by semicolons.
    NumPy archives: the length that most arrays share is the number of rows; a 1-D array is a column,
    a 2-D array ``Y`` of k columns is ``Y_0`` ... ``Y_{k-1}``; arrays of another length or dimension are left out.

    Raises ``DataFileError`` for a file that is missing, empty, damaged, of another kind, or has no rows,
    and for names that occur twice.
    """
    path = Path(path)
    kind = _kind(path, READABLE, "read")
    _check_is_file(path)
    if kind == ".parquet":
        table = _read_parquet(path)
    elif kind == ".npz":
        table = _read_archive(path)
    else:
        table = _read_text(path, kind, thousands)
    if table.height == 0:
        raise DataFileError(f"{path} has a header and no rows. A table needs at least one row.")
    return table


def column_group(columns: Iterable[str], name: str) -> list[str]:
    """The columns that a name stands for: itself, or ``name_0`` ... ``name_{k-1}`` where only those exist.

    >>> column_group(["x", "Y_0", "Y_1"], "Y")
    ['Y_0', 'Y_1']
    """
    present = set(columns)
    group: list[str] = []
    while name not in present and f"{name}_{len(group)}" in present:
        group.append(f"{name}_{len(group)}")
    return group or [name]


def write_table(frame: polars.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write ``.csv`` or ``.parquet`` in one step: after a failure the old file is still there, and nothing else is.

    Raises ``DataFileError`` if the folder is missing, the disk is full, or the format cannot hold the table.
    """
    path = Path(path)
    kind = _kind(path, WRITABLE, "write")
    if not path.parent.is_dir():
        raise DataFileError(f"cannot write {path}: there is no folder {path.parent}.")
    try:
        write_whole(path, frame.write_csv if kind == ".csv" else frame.write_parquet)
    except _DAMAGE as error:
        raise DataFileError(f"cannot write {path}: {_first_line(error)}. What was there before is unchanged.") from None


def _kind(path: Path, known: tuple[str, ...], verb: str) -> str:
    kind = next((ending for ending in known if path.name.lower().endswith(ending)), None)
    if kind is None:
        raise DataFileError(f"cannot {verb} {path}: its name should end in one of {', '.join(known)}.")
    return kind


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise DataFileError(f"{path} is a folder. Give the path of a file in it.")
    if path.is_file():
        if path.stat().st_size == 0:
            raise DataFileError(f"{path} is empty (0 bytes).")
        return
    if not path.parent.is_dir():
        raise DataFileError(f"no such file: {path}. There is no folder {path.parent} either.")
    neighbors = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    similar = difflib.get_close_matches(path.name, neighbors, n=3, cutoff=0.6)
    hint = f" Similar names in that folder: {', '.join(similar)}." if similar else ""
    raise DataFileError(f"no such file: {path}.{hint}")


def _read_text(path: Path, kind: str, thousands: bool) -> polars.DataFrame:
    try:
        # gzip of Python rather than of polars: it notices a truncated file.
        content = gzip.decompress(path.read_bytes()) if kind.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"cannot read {path}: {_first_line(error)}. Is the file complete?") from None
    content = content.removeprefix(b"\xef\xbb\xbf").strip(b"\r\n")
    if not content.strip():
        raise DataFileError(f"{path} is empty.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise DataFileError(f"{path} is not UTF-8 text ({byte}). Save it as UTF-8.") from None

    separator = "\t" if kind.startswith(".tsv") else _comma_or_semicolon(content)
    try:
        # The header is read as a row, because polars would rename duplicates silently.
        rows = polars.read_csv(content, has_header=False, infer_schema_length=0, separator=separator)
    except _DAMAGE as error:
        reason = _longest_line(content, separator) or _first_line(error)
        raise DataFileError(f"cannot read {path}: {reason}.") from None

    names = [(name or "").strip() or f"column_{position}" for position, name in enumerate(rows.row(0), start=1)]
    _check_unique(path, names)
    rows.columns = names
    rows = rows.slice(1)
    if rows.width > 1:
        rows = rows.filter(~polars.all_horizontal(polars.all().is_null()))
    rows = rows.with_columns(polars.all().str.strip_chars())
    rows = rows.with_columns(
        polars.when(~polars.all().is_in(MISSING_SPELLINGS)).then(polars.all()).otherwise(None).name.keep()
    )
    return polars.DataFrame([_narrow(column, thousands) for column in rows])


def _comma_or_semicolon(content: bytes) -> str:
    header = content.split(b"\n", 1)[0]
    return ";" if b";" in header and b"," not in header else ","


def _narrow(column: polars.Series, thousands: bool) -> polars.Series:
    """The first type that every filled cell has; text if there is none."""
    filled = column.drop_nulls()
    if filled.is_empty():
        return column
    if thousands and filled.str.contains(_THOUSANDS).all():
        column = column.str.replace_all(",", "", literal=True)
    for dtype in (polars.Int64, polars.Float64):
        numbers = column.cast(dtype, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
    if filled.str.to_lowercase().is_in(["true", "false"]).all():
        return column.str.to_lowercase() == "true"
    if filled.str.contains(_DATE).all():
        dates = column.str.to_date("%Y-%m-%d", strict=False)
        return dates if dates.null_count() == column.null_count() else column
    if filled.str.contains(_DATETIME).all():
        for form in _DATETIME_FORMATS:
            moments = column.str.replace(" ", "T", literal=True).str.to_datetime(form, time_unit="us", strict=False)
            if moments.null_count() == column.null_count():
                return moments
    return column


def _read_parquet(path: Path) -> polars.DataFrame:
    try:
        with open(path, "rb") as file:
            table = polars.read_parquet(file)
    except _DAMAGE as error:
        raise DataFileError(f"cannot read {path} as Parquet: {_first_line(error)}. Is the file complete?") from None
    return _stripped(path, list(table))


def _read_archive(path: Path) -> polars.DataFrame:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        lengths = Counter(len(array) for array in arrays.values() if array.ndim)
        rows = max(lengths, key=lambda length: (lengths[length], length), default=0)
        columns = []
        for key, array in arrays.items():
            if array.ndim == 1 and len(array) == rows:
                columns.append(polars.Series(key, array))
            elif array.ndim == 2 and len(array) == rows:
                columns += [polars.Series(f"{key}_{index}", part) for index, part in enumerate(array.T)]
    except (AttributeError, *_DAMAGE) as error:
        raise DataFileError(f"cannot read {path} as a NumPy archive: {_first_line(error)}.") from None
    if not columns:
        raise DataFileError(f"{path} holds no 1-D or 2-D array of {rows} rows, so there is no table in it.")
    return _stripped(path, columns)


def _stripped(path: Path, columns: list[polars.Series]) -> polars.DataFrame:
    names = [column.name.strip() for column in columns]
    _check_unique(path, names)
    table = polars.DataFrame([column.alias(name) for column, name in zip(columns, names, strict=True)])
    return table.with_columns(selectors.string().str.strip_chars())


def _check_unique(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataFileError(f"{path} has more than one column named {', '.join(map(repr, twice))}. Rename them.")


def _longest_line(content: bytes, separator: str) -> str | None:
    """Where the first line with more cells than the header is: polars says only that there is one."""
    reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter=separator)
    try:
        header = next(reader)
        for cells in reader:
            if len(cells) > len(header):
                return f"line {reader.line_num} has {len(cells)} cells, and the header has {len(header)}"
    except csv.Error:
        pass
    return None


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(" .:")
