"""Tables of every format give the same rows, and tell all that is wrong with them at once."""

import json

import pytest

from champ.batch.table import read_table
from champ.server import Failure

ROWS = [{"name": "anna", "10.seed": "5"}, {"name": "bob", "10.seed": "6", "reference": "b, c.png"}]


def write(tmp_path, name: str, text: str | bytes):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_of_any_spreadsheet(tmp_path, mark):
    text = f"\ufeffname{mark}10.seed{mark}reference{mark}# note\r\nanna{mark} 5 {mark}{mark}\r\n\r\n"
    text += f'bob{mark}6{mark}"b, c.png"{mark}"mine, too"\r\n'
    rows = read_table(write(tmp_path, "t.csv", text))
    assert [row.cells for row in rows] == ROWS
    assert [row.place for row in rows] == ["line 2", "line 4"]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    rows = read_table(write(tmp_path, "t.csv", 'name,text\na,"two\nlines"\nb,x\n'))
    assert [row.place for row in rows] == ["line 2", "line 4"]


def test_json_lines_keep_their_types(tmp_path):
    lines = [{"name": "anna", "10.seed": 5, "on": True}, {"name": "bob", "10.seed": None, "note": ""}]
    rows = read_table(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n"))
    assert [row.cells for row in rows] == [lines[0], {"name": "bob"}]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"name": ["anna", "bob"], "10.seed": [5, None], "2.fps": [float("nan"), 12.5]})
    parquet.write_table(table, tmp_path / "t.parquet")
    rows = read_table(tmp_path / "t.parquet")
    assert [(row.place, row.cells) for row in rows] == [
        ("row 1", {"name": "anna", "10.seed": 5}),
        ("row 2", {"name": "bob", "2.fps": 12.5}),
    ]
    with pytest.raises(Failure, match="is not a Parquet file"):
        read_table(write(tmp_path, "bad.parquet", "name\n"))


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    with pytest.raises(Failure) as caught:
        read_table(write(tmp_path, "t.csv", "name,a,a,\nx,1,2,\ny,1,2,3\nz,1,2,,,4\n"))
    assert "line 1: two columns are called 'a'" in str(caught.value)
    assert "line 3, line 4: a cell is in a column that has no name" in str(caught.value)
    with pytest.raises(Failure, match="line 3, line 4, line 6 to 9: a cell is in a column that has no name"):
        read_table(write(tmp_path, "t.csv", "name\nw\nx,1\ny,1\nz\n" + 4 * "a,1\n"))
    with pytest.raises(Failure) as caught:
        read_table(write(tmp_path, "t.jsonl", '{"name": 1}\n[1]\nnot json\n{"a": 1, "a": 2}\n'))
    text = str(caught.value)
    assert "line 2: is not an object" in text and "line 3: is not JSON" in text and "line 4: has 'a' twice" in text


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.xlsx", "", "does not end in .csv, .tsv, .jsonl"),
        ("t.csv", "name,a\n", "has no rows"),
        ("t.csv", b"name\n\xe9\n", "is not UTF-8 .byte 5.: save the table as CSV UTF-8"),
        ("t.csv", 'name\n"open', "line 2: is not CSV"),
        ("t.jsonl", "[" * 100000, "line 1: is not JSON"),
    ],
)
def test_what_is_no_table(tmp_path, name, text, message):
    with pytest.raises(Failure, match=message):
        read_table(write(tmp_path, name, text))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(Failure, match="there is no table"):
        read_table(tmp_path / "none.csv")
