"""A run folder whose name was mistyped: every command names the one that was probably meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from t0train.cli.main import main

COMMANDS = {
    "eval": ("eval", "{}"),
    "eval of all checkpoints": ("eval", "{}", "--all-checkpoints", "--suite", "toy_heldout"),
    "generate": ("generate", "{}", "some input"),
    "export": ("export", "{}", "exported"),
    "report": ("report", "{}"),
    "config show": ("config", "show", "{}"),
    "mixture check": ("mixture", "check", "{}"),
    "resume": ("train", "toy", "output=runs/new", "--resume", "{}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_nearest_run_folder_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("wordplay", "zebra"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.resolved.yaml").write_text("name: x\n")
    if command == "resume":
        main_of(monkeypatch, "toy", "runs/toy/p3")
        main_of(monkeypatch, "data", "prepare", "toy")
    code = main_of(monkeypatch, *(part.format("runs/wordpaly") for part in COMMANDS[command]))
    error = capsys.readouterr().err
    assert code == 2, error
    assert "in runs: did you mean 'wordplay'?" in error
    assert "zebra" not in error
    assert "Traceback" not in error


def main_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["t0train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code
