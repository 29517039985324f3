"""The toy from beginning to end, by the commands of scripts/quickstart.sh: what was learned carries over."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

HELD_OUT = ("restaurants", "mail", "about", "trip")


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Mean over unseen prompts, by state of the model and held-out dataset. About a minute on one core."""
    folder = tmp_path_factory.mktemp("quickstart")

    def t0train(*arguments: str) -> None:
        command = [sys.executable, "-m", "t0train", *arguments]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    t0train("toy", "runs/toy/p3")
    t0train("data", "prepare", "toy")
    t0train("train", "toy")
    t0train("eval", "runs/toy/run", "--untrained")
    t0train("eval", "runs/toy/run")
    means = {}
    for state, name in (("untrained", "toy_heldout-untrained"), ("trained", "toy_heldout")):
        results = json.loads((folder / "runs/toy/run/eval" / name / "results.json").read_text(encoding="utf-8"))
        means[state] = {task["dataset"]: task["mean"] for task in results["tasks"]}
    return means


@pytest.mark.parametrize("dataset", ["restaurants", "mail"])
def test_prompts_and_domains_that_training_lacks_are_solved(
    accuracy: dict[str, dict[str, float]], dataset: str
) -> None:
    # Three seeds gave 0.94 to 0.97 and 0.95 to 0.96; the untrained model is at chance, 0.50 and 0.25.
    assert accuracy["trained"][dataset] >= 0.75
    assert accuracy["trained"][dataset] >= accuracy["untrained"][dataset] + 0.20


def test_every_held_out_dataset_is_scored_before_and_after(accuracy: dict[str, dict[str, float]]) -> None:
    assert set(accuracy["untrained"]) == set(accuracy["trained"]) == set(HELD_OUT)
