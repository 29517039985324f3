"""`t0train train` on the command line; whole runs are in tests/training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from t0train.cli.main import main


def t0train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `t0train train ...`, in this process."""
    monkeypatch.setattr(sys, "argv", ["t0train", "train", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert t0train(monkeypatch, "--help") == 0
    assert "Example: t0train train toy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("no_such_run",), "no file no_such_run"),
        (("t0_3b", "train.stepps=3"), "did you mean 'steps'"),
        (("t0_3b", "train.precision=fp16"), "T5 overflows in fp16"),
        (("t0_3b", "data.max_targets=0"), "data.max_targets: found 0"),
        (("t0_3b", "mixture.name=t0ppp"), "t0ppp"),
        (("t0_3b", "train.device=gpu"), "train.device: found 'gpu'"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    assert t0train(monkeypatch, *arguments, f"output={tmp_path / 'run'}", f"data.source={tmp_path}") == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.err.count("error: ") == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []
