"""Values that are allowed and hardly meant."""

from __future__ import annotations

import re
import sys

import pytest

from t0train.cli.main import main
from t0train.config import config_remarks, load_config
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        # the rate of the last of 300 steps of a warm-up of 30,000 to 0.01 is 0.01 * 300 / 30000
        (
            ["optimizer.warmup=30000"],
            "optimizer.warmup is 30,000 and the run has 300 steps: the learning rate ends at 0.0001",
        ),
        (["data.max_targets=1"], "nothing is left of a target but the </s>"),
        (["data.max_inputs=1"], "nothing is left of an input but its first token"),
    ],
)
def test_a_value_that_is_hardly_meant_is_remarked_on(overrides: list[str], sentence: str) -> None:
    (remark,) = config_remarks(load_config("toy", overrides))
    assert sentence in remark


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs" / "runs").glob("*.yaml")))
def test_shipped_configurations_have_none(name: str) -> None:
    assert config_remarks(load_config(name, [])) == []


@pytest.mark.parametrize("command", ["show", "validate"])
def test_commands_print_them(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["t0train", "config", command, "toy", "data.max_targets=1"])
    with pytest.raises(SystemExit):
        main()
    assert re.search(r"remark: data\.max_targets is 1", capsys.readouterr().out)
