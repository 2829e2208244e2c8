"""Rows of files: the same from every kind, from any place in them, and clear words about what is wrong."""

import csv
import json
import os

import pyarrow as pa
import pytest
from pyarrow import parquet

from ufbert import InputError
from ufbert.scale.sources import BATCH, Columns, Cursor, Row, find_inputs, open_source

TEXTS = ["one", "", "two, with a comma", 'three "quoted"', "four\nlines", "fünf 🙂"]
ROWS = 3 * BATCH + 7


def texts(count=ROWS):
    return [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(count)]


def write(path, count=ROWS):
    values = texts(count)
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"n": list(range(count)), "text": values}), path, row_group_size=100)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"n": i, "text": text}) for i, text in enumerate(values)) + "\n\n")
    else:
        with open(path, "w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("n", "text"), *enumerate(values)])
    return path


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv", ".tsv"])
def test_every_kind_gives_its_rows_from_any_place(tmp_path, ending):
    source = open_source(write(tmp_path / f"a{ending}"), Columns(("text",), "n"))
    kind = str if ending in (".csv", ".tsv") else int
    expected = [Row(kind(i), text) for i, text in enumerate(texts())]
    assert source.count() == ROWS and list(source.rows()) == expected
    for first in (1, 99, 100, BATCH, 250, ROWS - 1, ROWS):
        assert list(source.rows(first)) == expected[first:]
    assert source.id_type() == ("string" if kind is str else "int64")


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
def test_pairs_and_no_id(tmp_path, ending):
    source = open_source(write(tmp_path / f"a{ending}", 3), Columns(("text", "text")))
    assert list(source.rows()) == [Row(None, (text, text)) for text in texts(3)]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
def test_a_file_without_rows(tmp_path, ending):
    source = open_source(write(tmp_path / f"a{ending}", 0), Columns(("text",)))
    assert source.count() == 0 and list(source.rows()) == []


def test_a_cursor_reads_on_and_jumps(tmp_path):
    cursor = Cursor(open_source(write(tmp_path / "a.parquet"), Columns(("text",))))
    for first, count in [(0, 10), (10, 90), (200, 5), (100, 50), (150, 1)]:
        assert [row.text for row in cursor.read(first, count)] == texts()[first : first + count]


def test_a_cursor_refuses_a_file_that_changes(tmp_path):
    path = write(tmp_path / "a.jsonl")
    cursor = Cursor(open_source(path, Columns(("text",))))
    list(cursor.read(0, 10))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="found it changed"):
        list(cursor.read(10, 10))
    with pytest.raises(InputError, match="found it changed"):
        list(Cursor(open_source(path, Columns(("text",)))).read(ROWS - 1, 2))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string()])
def test_strings_of_every_kind_and_nulls(tmp_path, kind):
    parquet.write_table(pa.table({"text": pa.array(["a", None, "b"]).cast(kind)}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", Columns(("text",), "text"))
    assert [row.text for row in source.rows()] == ["a", None, "b"] and source.id_type() == "string"


def test_what_is_not_utf8_is_bytes(tmp_path):
    broken = pa.array([b"good", b"\xff\xfe"]).view(pa.string())
    parquet.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    rows = open_source(tmp_path / "a.parquet", Columns(("text",))).rows()
    assert [row.text for row in rows] == ["good", b"\xff\xfe"]


def test_a_key_that_a_line_lacks_is_null_as_a_text_and_refused_as_an_id(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1}\n{"n": 2}\n{"text": "c"}\n')
    assert [row.text for row in open_source(tmp_path / "a.jsonl", Columns(("text",))).rows()] == ["a", None, "c"]
    with pytest.raises(InputError, match="line 3: expected the key 'n'"):
        list(open_source(tmp_path / "a.jsonl", Columns(("text",), "n")).rows())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: expected JSON"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1: expected JSON in UTF-8"),
        ("a.jsonl", b'["a"]\n', "line 1: expected a JSON object"),
        ("a.csv", b"text\na\nb,c\n", "row 1: expected 1 fields"),
        ("a.csv", b"other\na\n", "expected one column 'text', found 'other'"),
        ("a.csv", b"", "expected one column 'text', found none"),
        ("a.csv", b"text,text\na,b\n", "expected one column 'text', found 'text', 'text'"),
        ("a.csv", b'text\n"a\n', "expected CSV in UTF-8"),
        ("a.csv", b"text\n\xff\n", "expected CSV in UTF-8"),
        ("a.parquet", b"PAR1", "expected a whole Parquet file"),
        ("a.txt", b"a\n", "expected a file that ends in .parquet"),
    ],
)
def test_damage_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(open_source(tmp_path / name, Columns(("text",))).rows())


@pytest.mark.parametrize("value", [0x7F, 0xFF])
def test_any_byte_of_a_footer_may_be_wrong(tmp_path, value):
    """Names that are not UTF-8, numbers of rows below 0 or beyond all files, and whatever else can be said there."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"n": [1, 2], "text": ["a", "b"]}), path, store_schema=False, write_statistics=False)
    whole = path.read_bytes()
    for place in range(len(whole) - int.from_bytes(whole[-8:-4], "little") - 8, len(whole)):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        said = str(path)
        try:
            source = open_source(path, Columns(("text",), "n"))
            list(Cursor(source).read(0, source.count()))
        except InputError as error:
            said = str(error)
        assert said.startswith(str(path))


def test_columns_of_other_types_are_refused(tmp_path):
    table = pa.table({"text": ["a"], "number": [1.5], "list": [["a"]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="expected one column 'missing', found 'text', 'number', 'list'"):
        open_source(tmp_path / "a.parquet", Columns(("missing",)))
    with pytest.raises(InputError, match="list: expected a column of strings, found list"):
        open_source(tmp_path / "a.parquet", Columns(("list",)))
    with pytest.raises(InputError, match="number: expected integers or strings, found double"):
        open_source(tmp_path / "a.parquet", Columns(("text",), "number")).id_type()


def test_inputs_are_found_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt", "[x].csv"):
        (tmp_path / name).write_text("text\n")
    assert [path.name for path in find_inputs(f"{tmp_path}/?.csv")] == ["a.csv", "b.csv"]
    assert [path.name for path in find_inputs(f"{tmp_path}/[x].csv")] == ["[x].csv"]  # a name goes before a pattern
    with pytest.raises(InputError, match="found none"):
        find_inputs(f"{tmp_path}/*.parquet")
    with pytest.raises(InputError, match="expected a file, found a folder; name files"):
        find_inputs(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="found a pipe, a device or a broken link"):
            find_inputs(f"{tmp_path}/{name}.jsonl")


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="expected one column 'text', found 'text', 'text'"):
        open_source(tmp_path / "a.parquet", Columns(("text",)))


def test_columns_of_csv_are_checked_before_a_row_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("other\n")
    with pytest.raises(InputError, match="expected one column 'text', found 'other'"):
        open_source(tmp_path / "a.csv", Columns(("text",)))


def test_the_type_of_ids_is_that_of_the_first_one(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": null}\n{"text": "b", "n": 3}\n')
    assert open_source(tmp_path / "a.jsonl", Columns(("text",), "n")).id_type() == "int64"
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": true}\n')
    with pytest.raises(InputError, match="n: expected integers or strings, found True"):
        open_source(tmp_path / "a.jsonl", Columns(("text",), "n")).id_type()


def test_columns_beside_nested_ones(tmp_path):
    nested = pa.array([{"t": "inside"}])
    parquet.write_table(pa.table({"s": nested, "s.t": ["beside"], "text": ["a"]}), tmp_path / "a.parquet")
    assert [row.text for row in open_source(tmp_path / "a.parquet", Columns(("s.t",))).rows()] == ["beside"]
    with pytest.raises(InputError, match="s: expected a column of strings, found struct"):
        open_source(tmp_path / "a.parquet", Columns(("s",)))
