"""Tables on a terminal: cells are shown as they stand, whatever is in them."""

from __future__ import annotations

import pytest
from rich.table import Table

from t0train.cli.tables import add_row, show_table


def test_cells_are_plain_texts(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[name]", box=None)
    add_row(table, "[bold]a[/bold] [/x] :smile:")
    add_row(table, "\x1b[31mred\u202e", style="dim")
    show_table(table)
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert printed == ["[name]", "[bold]a[/bold] [/x] :smile:", "\ufffd[31mred\ufffd"]
