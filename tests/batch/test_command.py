"""What is wrong with the command itself is one sentence, before a worker is started."""

import io
import json
import sys

import pytest

from champ.batch import command


@pytest.fixture
def line(tmp_path, monkeypatch) -> list[str]:
    """A command that would run, with the folder of results as its last word."""
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)  # the tests' own stays
    monkeypatch.setattr(command, "workers", None)  # nothing gets so far
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    (tmp_path / "t.csv").write_text("name\na\n")
    (tmp_path / "w.json").write_text(json.dumps({"1": {"class_type": "X", "inputs": {}}}))
    monkeypatch.chdir(tmp_path)
    return ["t.csv", "--workflow", "w.json", "--comfyui", "ComfyUI", "--out", "out"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"out": "t.csv/out"}, "error: --out: out cannot be saved in "),
        ({"out": "a" * 300}, "its name or path is too long; choose a shorter name"),
        ({"t.csv": f"{'a' * 300}.csv"}, "a.csv: File name too long"),
        ({"t.csv": "~nobody-of-this-name/t.csv"}, "error: there is no table ~nobody-of-this-name/t.csv"),
        ({"ComfyUI": "~nobody-of-this-name"}, "error: ~nobody-of-this-name is not a ComfyUI folder"),
    ],
)
def test_paths_that_lead_nowhere(line, capsys, change, message):
    if "File name" in message and (sys.platform != "linux" or sys.version_info >= (3, 14)):
        message = "there is no table"
    assert command.main([change.get(word, word) for word in line]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("name, value", [("silence", "0"), ("silence", "nan"), ("workers", "0"), ("limit", "-1")])
def test_numbers_that_are_too_small(line, capsys, name, value):
    assert command.main([*line, f"--{name}={value}"]) == 1
    assert f"error: --{name} is {value}" in capsys.readouterr().out.replace("0.0", "0")


def test_sentences_are_written_where_letters_are_missing(line, monkeypatch):
    """As in a console of Windows, or a log file that it writes."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert command.main(["踊り.csv", *line[1:]]) == 1
    assert b"error: there is no table \\u8e0a\\u308a.csv" in written.getvalue()
