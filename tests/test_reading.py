"""Reading and writing tables: what a file says is what the frame holds, and bad files are named plainly."""

from __future__ import annotations

import gzip
import os
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastlayer.checks import DataFileError
from lastlayer.preprocessing import column_group, read_table, write_table

PENGUINS = Path(__file__).parent.parent / "data" / "penguins.csv.gz"


def write(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return path


def column(folder: Path, *cells: str, thousands: bool = False) -> polars.Series:
    """A column of these cells, read beside another that keeps its rows alive."""
    text = "a\tb\n" + "".join(f"{cell}\t0\n" for cell in cells)
    return read_table(write(folder, text, "table.tsv"), thousands=thousands)["a"]


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        ((" 12", "3 ", "+4"), polars.Int64, [12, 3, 4]),
        (("1.5", "-2e3", "NA"), polars.Float64, [1.5, -2000.0, None]),
        (("1", "-inf", "inf"), polars.Float64, [1.0, -np.inf, np.inf]),
        (("99999999999999999999", "1"), polars.Float64, [1e20, 1.0]),
        (("true", " FALSE ", "?"), polars.Boolean, [True, False, None]),
        (("2024-02-29", "", "1999-12-31"), polars.Date, [date(2024, 2, 29), None, date(1999, 12, 31)]),
        (("2024-02-30", "2024-01-01"), polars.String, ["2024-02-30", "2024-01-01"]),
        (("2024-01-02 03:04", "NA"), polars.Datetime("us"), [datetime(2024, 1, 2, 3, 4), None]),
        (("2024-01-02T03:04:05.5",), polars.Datetime("us"), [datetime(2024, 1, 2, 3, 4, 5, 500000)]),
        (("1,234", "5"), polars.String, ["1,234", "5"]),
        ((" a b ", "1"), polars.String, ["a b", "1"]),
        (("1", "2", "1_0"), polars.String, ["1", "2", "1_0"]),
        (("NA", "null", "None", "N/A", "nan", "NULL", "?", " NaN ", ""), polars.String, [None] * 9),
    ],
)
def test_a_column_takes_the_type_of_all_its_cells(tmp_path, cells, dtype, values):
    read = column(tmp_path, *cells)
    assert read.dtype == dtype
    assert read.to_list() == values


def test_the_last_row_decides_too(tmp_path):
    assert column(tmp_path, *["1"] * 20_000, "x").dtype == polars.String


def test_offsets_become_utc(tmp_path):
    read = column(tmp_path, "2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05Z")
    assert read.to_list() == [datetime(2024, 1, 2, hour, 4, 5, tzinfo=timezone.utc) for hour in (1, 3)]


def test_thousands_are_numbers_only_on_request_and_only_if_all_are(tmp_path):
    assert column(tmp_path, "1,234", "5", "-1,234,567.5", "", thousands=True).to_list() == [1234, 5, -1234567.5, None]
    assert column(tmp_path, "1,234", "12,34", thousands=True).to_list() == ["1,234", "12,34"]


def test_header_quotes_lines_and_separators(tmp_path):
    text = '\ufeff" a ",b,\r\n"x, y",1,2\r\n\r\n"line\nbreak",,3\r\n\r\n'
    table = read_table(write(tmp_path, text))
    assert table.columns == ["a", "b", "column_3"]
    assert table.rows() == [("x, y", 1, 2), ("line\nbreak", None, 3)]
    assert read_table(write(tmp_path, "a;b\n1;2\n")).rows() == [(1, 2)]
    assert read_table(write(tmp_path, "a\n1\n\n3\n"))["a"].to_list() == [1, None, 3]


def test_gzip_tsv_and_upper_case_names_read_alike(tmp_path):
    text = "a,b\n1,x\n2,\n"
    expected = read_table(write(tmp_path, text))
    for name, content in [("t.csv.gz", text), ("t.tsv", text.replace(",", "\t")), ("T.CSV", text)]:
        assert read_table(write(tmp_path, content, name)).equals(expected)


def test_penguins():
    table = read_table(PENGUINS)
    assert table.shape == (344, 8)
    assert sum(table.null_count().row(0)) == 19
    assert table["bill_length_mm"].dtype == polars.Float64
    assert table["species"].n_unique() == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"is empty"),
        ("t.csv", b"\n\n", r"is empty"),
        ("t.csv", b"a,b\n", r"a header and no rows"),
        ("t.csv", b"a,b, a \n1,2,3\n", r"more than one column named 'a'"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", r"line 3 has 3 cells, and the header has 2"),
        ("t.csv", b"a,b\n\xff\xfe,1\n", r"not UTF-8 text \(byte 0xff at offset 4\)"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), r"not UTF-8"),
        ("t.csv", b'a,b\n"open,1\n2,3\n', r"cannot read"),
        ("t.csv.gz", b"a,b\n1,2\n", r"cannot read .*gzip"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 100, mtime=0)[:-12], r"cannot read .*complete"),
        ("t.parquet", b"PAR1 nothing", r"as Parquet"),
        ("t.npz", b"PK nothing", r"as a NumPy archive"),
        ("t.xlsx", b"PK", r"should end in one of \.csv, .*\.npz"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    write(tmp_path, "a\n1\n", "penguins.csv")
    with pytest.raises(DataFileError, match=r"no such file.*Similar names in that folder: penguins\.csv"):
        read_table(tmp_path / "pengiuns.csv")
    with pytest.raises(DataFileError, match="no folder"):
        read_table(tmp_path / "nowhere" / "t.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataFileError, match="is a folder"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize("ending", [".parquet", ".npz", ".csv.gz"])
def test_every_truncation_is_an_error(tmp_path, ending):
    whole = tmp_path / f"whole{ending}"
    table = polars.DataFrame({"a": range(200), "b": [f"text {i}" for i in range(200)]})
    if ending == ".parquet":
        table.write_parquet(whole)
    elif ending == ".npz":
        np.savez_compressed(whole, a=table["a"].to_numpy(), b=table["b"].to_numpy().astype(str))
    else:
        whole.write_bytes(gzip.compress(table.write_csv().encode()))
    content = whole.read_bytes()
    assert read_table(whole).equals(table)
    for share in (0.1, 0.5, 0.9, 0.99):
        cut = tmp_path / f"cut{ending}"
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataFileError):
            read_table(cut)


def test_parquet_keeps_its_types_and_loses_spaces(tmp_path):
    table = polars.DataFrame({" n ": ["1", " 2"], "d": [date(2024, 1, 1), None], "f": [1.0, np.inf]})
    table.write_parquet(tmp_path / "t[1].parquet")
    read = read_table(tmp_path / "t[1].parquet")
    assert read.schema == {"n": polars.String, "d": polars.Date, "f": polars.Float64}
    assert read["n"].to_list() == ["1", "2"]


def test_npz_keeps_the_arrays_of_the_common_length(tmp_path):
    path = tmp_path / "t.npz"
    X, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1], dtype=np.uint8)
    np.savez(path, X=X, y=y, name=np.array(["a", "b ", "c", "d"]), index=np.zeros((2, 9)), images=np.zeros((4, 2, 2)))
    table = read_table(path)
    assert table.columns == ["X_0", "X_1", "X_2", "y", "name"]
    assert np.array_equal(table.select(column_group(table.columns, "X")).to_numpy(), X)
    assert table["y"].dtype == polars.UInt8
    assert table["name"].to_list() == ["a", "b", "c", "d"]


def test_npz_without_a_table_or_with_pickles(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, scalar=np.array(3), images=np.zeros((4, 2, 2)))
    with pytest.raises(DataFileError, match="no table in it"):
        read_table(path)
    np.savez(path, a=np.array([{}, 1], dtype=object))
    with pytest.raises(DataFileError, match="allow_pickle=False"):
        read_table(path)
    np.savez(path, Y=np.zeros((3, 2)), Y_1=np.zeros(3))
    with pytest.raises(DataFileError, match="more than one column named 'Y_1'"):
        read_table(path)


def test_column_group():
    columns = ["Y_0", "Y_1", "Y_3", "z", "z_0"]
    assert column_group(columns, "Y") == ["Y_0", "Y_1"]
    assert column_group(columns, "z") == ["z"]
    assert column_group(columns, "absent") == ["absent"]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.none() | st.floats(allow_nan=False), min_size=3, max_size=3).filter(any),
    words=st.lists(st.text("abc,\"'; \n", min_size=1).map("w".join), min_size=3, max_size=3),
)
def test_what_is_written_is_read(tmp_path, ending, numbers, words):
    words = [f"<{word}>" for word in words]
    table = polars.DataFrame(
        {"number": numbers, "word": words}, schema={"number": polars.Float64, "word": polars.String}
    )
    write_table(table, tmp_path / f"t{ending}")
    assert read_table(tmp_path / f"t{ending}").equals(table)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    table = polars.DataFrame({"a": [1, 2]})
    write_table(table, path)

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataFileError, match=r"cannot write .*t\.csv: .*unchanged"):
        write_table(polars.DataFrame({"nested": [[1], [2]]}), path)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(DataFileError, match="No space left on device"):
        write_table(table.head(1), path)
    assert os.listdir(tmp_path) == ["t.csv"]
    assert read_table(path).equals(table)


def test_write_names_what_it_cannot_do(tmp_path):
    table = polars.DataFrame({"a": [1]})
    with pytest.raises(DataFileError, match=r"should end in one of \.csv, \.parquet"):
        write_table(table, tmp_path / "t.xlsx")
    with pytest.raises(DataFileError, match="there is no folder"):
        write_table(table, tmp_path / "nowhere" / "t.csv")
