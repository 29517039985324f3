"""Processes that are not of one run are refused before the first step, with what they differ in."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from t0train.config import load_config
from t0train.data import prepare
from t0train.distributed.agreement import differences
from tests.distributed.helpers import ROOT, ends, start_like_srun

SETTINGS = ("train.batch.rows=6", "train.steps=2", "train.canary=false", "train.timeout_s=60")
START_S = 180


def refusal(
    world: Path, output: Path, of_last: Sequence[str] = (), environment_of_last: Mapping[str, str] | None = None
) -> str:
    """What two processes of a run say, of which the second has other arguments or variables."""
    command = ("-P", "-m", "t0train", "train", str(world / "run.yaml"), f"output={output}", *SETTINGS)
    found = ends(
        start_like_srun(2, *command, of_last=of_last, environment_of_last=environment_of_last), timeout=START_S
    )
    assert [code for code, _ in found] == [2, 2], found
    said = "".join(stderr for _, stderr in found)
    assert said.count("error: the processes of this run differ:\n") == 1, said
    assert "Traceback" not in said
    assert not output.exists()
    return said


@pytest.mark.distributed
@pytest.mark.slow
def test_two_seeds(world: Path, tmp_path: Path) -> None:
    said = refusal(world, tmp_path / "run", ["seed=1", "optimizer.lr=0.5"])
    host = socket.gethostname()
    assert f"  seed: 0 in process 0 on {host}; 1 in process 1 on {host}\n" in said
    assert f"  optimizer.lr: 0.01 in process 0 on {host}; 0.5 in process 1 on {host}\n" in said
    assert said.count(f" in process 1 on {host}\n") == 2, "and nothing else differs"


@pytest.mark.distributed
@pytest.mark.slow
def test_another_mixture_file_of_the_same_path(world: Path, tmp_path: Path) -> None:
    """A catalogue is a file of each machine; what it makes of the mixture must be the same."""
    catalogue = tmp_path / "catalogue.csv"
    lines = (world / "catalogue.csv").read_text().splitlines()
    catalogue.write_text("\n".join(line for line in lines if not line.startswith("counting,")) + "\n")
    said = refusal(world, tmp_path / "run", [f"data.catalogue={catalogue}"])
    assert "  mixture (content hash): " in said
    assert "  token store (content hash): " in said
    assert "vocabulary" not in said


@pytest.mark.distributed
@pytest.mark.slow
def test_a_store_of_other_rows(world: Path, tmp_path: Path) -> None:
    """The data of one machine has one row more, and its own store was prepared from it."""
    shutil.copytree(world / "data", tmp_path / "data")
    file = tmp_path / "data" / "colours" / "default" / "train.jsonl"
    file.write_text(file.read_text() + '{"text": "rose", "label": 0}\n')
    own = [f"data.source={tmp_path / 'data'}", f"data.store={tmp_path / 'store'}"]
    prepare(load_config(world / "run.yaml", own))
    said = refusal(world, tmp_path / "run", own)
    assert "  token store (content hash): " in said
    assert "mixture" not in said


@pytest.mark.distributed
@pytest.mark.slow
def test_other_code(world: Path, tmp_path: Path) -> None:
    """A checkout in which one comment is another."""
    shutil.copytree(ROOT / "t0train", tmp_path / "code" / "t0train", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "code" / "t0train" / "optim" / "adafactor.py"
    file.write_text(file.read_text() + "# changed\n")
    said = refusal(world, tmp_path / "run", environment_of_last={"PYTHONPATH": str(tmp_path / "code")})
    assert "  t0train (hash of its source files): " in said
    assert "version" not in said


def test_processes_are_grouped_by_value_and_host() -> None:
    same = {"train.steps": 5, "name": "one"}
    found = [("gpu01", same), ("gpu01", same), ("gpu02", {**same, "name": "two"}), ("gpu02", same)]
    assert differences(found) == [
        'name: "one" in processes 0-1 on gpu01, process 3 on gpu02; "two" in process 2 on gpu02'
    ]
    assert differences([("gpu01", same)] * 3) == []


def test_a_key_that_one_process_does_not_have_and_long_values_differ() -> None:
    assert differences([("a", {"new": 1}), ("b", {})]) == ["new: 1 in process 0 on a; absent in process 1 on b"]
    assert len(differences([("a", {"long": "x" * 999 + "1"}), ("b", {"long": "x" * 999 + "2"})])) == 1
    assert differences([("a", {"n": 1}), ("b", {"n": True})]), "1 and true are not the same value"
