"""What commands show: tables and JSON on stdout, progress on stderr; texts as they stand, whatever is in them."""

from __future__ import annotations

import io
import json
import sys

import pytest

from t0train.core.console import ConsoleTable, print_json, progress, show_records


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_cells_are_plain_texts(capsys: pytest.CaptureFixture[str]) -> None:
    table = ConsoleTable(["[name]"], is_plain=True)
    table.add("[bold]a[/bold] [/x] :smile:")
    table.add("\x1b[31mred\u202e", style="dim")
    table.show()
    assert lines(capsys.readouterr().out) == ["[name]", "[bold]a[/bold] [/x] :smile:", "\ufffd[31mred\ufffd"]


def test_titles_are_plain_texts(capsys: pytest.CaptureFixture[str]) -> None:
    table = ConsoleTable(["a\x1b[31m"], title="[b]t[/b]\x1b[2J")
    table.add("wider than the title")
    table.show()
    printed = capsys.readouterr().out
    assert "[b]t[/b]\ufffd[2J" in printed
    assert "\x1b" not in printed


def test_numbers_are_at_the_right_and_nothing_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table = ConsoleTable(["name", "number"], ["number"], is_plain=True, shows_header=False)
    table.add("a" * 300, "7")
    table.add("b", "1,000")
    table.show()
    assert capsys.readouterr().out.splitlines() == [f"{'a' * 300}      7", f"b{' ' * 299}  1,000"]


def test_records_show_the_columns_that_hold_anything(capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"name": "a", "subset": "", "rate_sum": 1234567.0, "probability": 0.125, "rows": None, "is_own": True},
        {"name": "b", "subset": "", "rate_sum": 0.5, "probability": 1.0, "rows": 12, "is_own": False},
    ]
    show_records(records, {"probability": ".1%"})
    header, first, second = (line.split() for line in lines(capsys.readouterr().out))
    assert header == ["name", "rate", "sum", "probability", "rows", "is", "own"]
    assert first == ["a", "1,234,567", "12.5%", "yes"]
    assert second == ["b", "0.5", "100.0%", "12", "no"]


def test_lists_in_records_are_joined(capsys: pytest.CaptureFixture[str]) -> None:
    show_records([{"name": "a", "columns": ["text", "label"]}])
    assert lines(capsys.readouterr().out)[1].split(maxsplit=1) == ["a", "text, label"]


@pytest.mark.parametrize(("encoding", "is_escaped"), [("utf-8", False), ("ascii", True)])
def test_json_is_whole_whatever_stdout_can_encode(
    encoding: str, is_escaped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json({"name": "na\u00efve"})
    stdout.flush()
    written = stdout.buffer.getvalue()
    assert json.loads(written) == {"name": "na\u00efve"}
    assert (b"\\u00ef" in written) is is_escaped


def test_plain_lines_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("prepare", total=1000, unit="examples", every_s=0) as advance:
        advance(250, note="loss 1.5")
        advance(750)
    printed = capsys.readouterr()
    first, last = printed.err.splitlines()
    assert printed.out == ""
    assert first.startswith("prepare: 250/1,000 examples, ")
    assert first.endswith("s left  loss 1.5")
    assert last.startswith("prepare: 1,000/1,000 examples, ")
    assert ", 0 s left" in last


def test_few_lines_however_often_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("prepare", total=1000, unit="examples", every_s=3600) as advance:
        for _ in range(1000):
            advance()
    assert len(capsys.readouterr().err.splitlines()) == 1  # the last one, always


def test_a_resumed_piece_of_work_counts_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train", total=10, unit="steps", done=8, every_s=0) as advance:
        advance()
    assert capsys.readouterr().err.startswith("train: 9/10 steps")
