"""`t0train estimate` on the command line; the figures are tested in tests/estimate."""

from __future__ import annotations

import json
import sys

import pytest

from t0train.cli.main import main


def t0train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `t0train estimate ...`, in this process."""
    monkeypatch.setattr(sys, "argv", ["t0train", "estimate", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert t0train(monkeypatch, "t0_3b", "--device", "h200", "--count", "8", "--price-per-hour", "3") == 0
    printed = capsys.readouterr().out
    for expected in (
        "2,849,757,184 parameters",
        "8 x h200, fsdp",
        "11.35 TFLOP",
        "12.5 hours",
        "1.42e+20 FLOP",
        "fits",
    ):
        assert expected in printed
    assert "does not fit" not in printed


def test_json_is_plain_and_adds_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert t0train(monkeypatch, "t0pp", "--count", "8", "--micro-batch-rows", "4", "--json", "train.steps=100") == 0
    result = json.loads(capsys.readouterr().out)
    kinds = dict(result["bytes_per_gpu"])
    assert kinds.pop("total") == sum(kinds.values())
    assert result["micro_batch_rows"] == 4
    assert result["flop_per_row"]["train"] == pytest.approx(43.57e12, rel=0.01)
    assert result["run_flop"] == result["flop_per_row"]["train"] * 1024 * 100
    assert result["hours"] == pytest.approx(100 * result["seconds_per_step"] / 3600)
    assert result["fits"] is True


def test_says_what_to_change(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert t0train(monkeypatch, "t0", "--device", "a100-80") == 0
    assert "\n  2 GPUs\n" in capsys.readouterr().out
    assert t0train(monkeypatch, "t0_3b", "data.max_inputs=65536") == 0
    assert "no number of these GPUs" in capsys.readouterr().out


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert t0train(monkeypatch, "--help") == 0
    assert "Example: t0train estimate t0_3b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("no_such_run",), "no file no_such_run"),
        (("t0_3b", "--device", "h20"), "did you mean 'h200'"),
        (("t0_3b", "--micro-batch-rows", "0"), "train.batch.micro_batch_rows"),
        (("t0_3b", "--strategy", "zero"), "train.strategy: found 'zero'"),
        (("t0_3b", "train.stepps=3"), "did you mean 'steps'"),
    ],
)
def test_bad_input_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    assert t0train(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.err.count("error: ") == 1
    assert printed.out == ""
