"""The run is the same on one process, on two, three and four, under every strategy, and across changes of both."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from t0train.config import load_config
from t0train.core.events import read_events
from t0train.model import load_model
from t0train.training import Trainer, train
from t0train.training.setup import ignore
from tests.distributed.helpers import (
    assert_same_events,
    assert_same_parameters,
    assert_same_state,
    last_checkpoint,
    parameters,
    run_cases,
)
from tests.distributed.noted_rows import noting, rows_by_step, rows_of_stream
from tests.training.helpers import steps_of, tensors

UNTIED = ("train.steps=20", "train.batch={rows: 12, micro_batch_rows: 2}", "model.dropout=0.1")
TIED = ("train.steps=20", "train.batch={rows: 12, micro_batch_rows: 4}", "model.dropout=0.0")
EXAMPLES = (
    "train.steps=8",
    "train.batch={rows: null, examples: 11, micro_batch_rows: 2}",
    "train.loss.denominator=tokens",
)
ADAMW = ("optimizer={name: adamw, lr: 0.001, max_grad_norm: 0.05, weight_decay: 0.1}", "train.steps=8")
RECIPES = {  # name: model, overrides
    "untied": ("untied", UNTIED),
    "tied": ("tied", TIED),
    "untied-still": ("untied", (*UNTIED, "model.dropout=0.0")),
    "tied-dropout": ("tied", (*TIED, "model.dropout=0.1")),
    "sdpa": ("untied", (*UNTIED, "model.attention=sdpa", "train.steps=6")),
    "examples": ("untied", EXAMPLES),
    "adamw": ("untied", (*UNTIED, *ADAMW)),
    "bf16": ("untied", (*UNTIED, "train.precision=bf16", "train.steps=4", "optimizer.max_grad_norm=1.5")),
}
STRATEGIES = {
    "single": ("train.strategy=single",),
    "ddp": ("train.strategy=ddp",),
    "fsdp": ("train.strategy=fsdp",),
    "hsdp": ("train.strategy=hsdp", "train.replicas=2"),
    "fsdp-compiled": ("train.strategy=fsdp", "train.compile=true", "train.activation_checkpointing=block"),
    **{f"zero{stage}": ("train.strategy=deepspeed", f"train.deepspeed.stage={stage}") for stage in (1, 2, 3)},
}


@dataclass(frozen=True)
class Case:
    """A run, or (with `half`) the first ten steps of one, or (with `after`) what continues those ten."""

    recipe: str
    strategy: str
    processes: int
    half: bool = False
    after: str = ""
    asynchronous: bool = False
    workers: int = 2

    def __str__(self) -> str:
        name = f"{self.recipe}-{self.strategy}-x{self.processes}"
        return name + ("-half" if self.half else "") + (f"-after-{self.after}" if self.after else "")


WHOLE = [
    *(Case("untied", strategy, 2) for strategy in ("zero1", "zero2", "zero3")),
    *(Case("untied", strategy, 3) for strategy in ("ddp", "fsdp", "zero1", "zero2", "zero3")),
    *(Case("untied", strategy, 2, workers=0) for strategy in ("ddp", "fsdp")),
    *(Case("untied", strategy, 4, workers=3) for strategy in ("fsdp", "hsdp")),
    *(Case("tied", strategy, 2) for strategy in ("ddp", "fsdp", "zero1", "zero2", "zero3")),
    *(Case("tied", strategy, 3, workers=1) for strategy in ("ddp", "fsdp", "zero1", "zero2", "zero3")),
    *(Case("tied", strategy, 4) for strategy in ("fsdp", "hsdp")),
    *(Case("untied-still", *where) for where in (("fsdp", 3), ("zero2", 2))),
    *(Case("tied-dropout", *where) for where in (("fsdp", 4), ("zero3", 2))),
    *(Case("examples", *where) for where in (("fsdp", 4), ("ddp", 4), ("zero3", 2))),
    *(Case("adamw", *where) for where in (("fsdp", 2), ("zero2", 2), ("zero3", 3), ("hsdp", 4))),
    Case("sdpa", "fsdp-compiled", 2),
]
BF16 = [Case("bf16", strategy, 2) for strategy in ("ddp", "fsdp", "zero1", "zero2", "zero3")]
HALVES = [
    Case("untied", "fsdp", 4, half=True, asynchronous=True),
    Case("untied", "zero2", 2, half=True),
    Case("untied", "single", 1, half=True),
]
RESUMED = [
    *(Case("untied", strategy, 2, after="untied-fsdp-x4-half") for strategy in ("ddp", "zero3")),
    Case("untied", "fsdp", 3, after="untied-fsdp-x4-half"),
    Case("untied", "single", 1, after="untied-fsdp-x4-half"),
    Case("untied", "zero1", 3, after="untied-zero2-x2-half"),
    Case("untied", "fsdp", 2, after="untied-zero2-x2-half"),
    Case("untied", "single", 1, after="untied-zero2-x2-half"),
    Case("untied", "hsdp", 4, after="untied-single-x1-half"),
    Case("untied", "zero3", 3, after="untied-single-x1-half"),
]
ALONE = [*(Case(recipe, "single", 1) for recipe in RECIPES), *(case for case in HALVES if case.processes == 1)]


def reference(case: Case) -> str:
    return f"{case.recipe}-single-x1"


@pytest.fixture(scope="module")
def runs(world: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all runs, by their names; one start of processes for each number of them."""
    torch.set_num_threads(1)  # before the fixture that does it for a test
    folder = tmp_path_factory.mktemp("runs")

    def settings(case: Case) -> list[str]:
        model, recipe = RECIPES[case.recipe]
        common = (
            f"output={folder / str(case)}",
            f"model.init_from={models / model}",
            "model.size=''",
            "optimizer={lr: 0.001, min_dim_size_to_factor: 16}",
            f"train.checkpoint={{every: {5 if case.half else 100}, asynchronous: {str(case.asynchronous).lower()}}}",
            "train.canary=false",
            f"data.workers={case.workers}",
        )
        return [*common, *recipe, *STRATEGIES[case.strategy], *(["train.steps=10"] if case.half else [])]

    def resume(case: Case) -> str:
        return str(folder / case.after / "checkpoints" / "step-00000010") if case.after else "auto"

    by_processes: dict[int, list[Case]] = defaultdict(list)
    for case in (*WHOLE, *BF16, *HALVES, *RESUMED):
        by_processes[case.processes].append(case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", noting(Trainer.step))
        for case in ALONE:
            train(load_config(world / "run.yaml", settings(case)), notify=ignore)
        for processes in (4, 2, 3):
            cases = [{"overrides": settings(case), "resume": resume(case)} for case in by_processes[processes]]
            run_cases(processes, world / "run.yaml", cases, folder)
        for case in by_processes[1]:
            if case.after:
                train(load_config(world / "run.yaml", settings(case)), resume(case), ignore)
    return folder


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_a_run_is_that_of_one_process(case: Case, runs: Path, models: Path, tmp_path: Path) -> None:
    run, expected = runs / str(case), runs / reference(case)
    assert_same_events(run, expected)
    assert_same_parameters(run, expected, models / RECIPES[case.recipe][0], tmp_path, case.recipe == "adamw")
    assert_same_state(run, expected, tmp_path)


@pytest.mark.parametrize("case", BF16, ids=str)
def test_bf16_is_that_of_one_process_up_to_its_rounding(case: Case, runs: Path, models: Path, tmp_path: Path) -> None:
    run, expected = runs / str(case), runs / reference(case)
    for found, wanted in zip(steps_of(run), steps_of(expected), strict=True):
        assert found["cross_entropy"] == pytest.approx(wanted["cross_entropy"], rel=0.005)
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=0.05)
    start, end, other = (parameters(last_checkpoint(at), tmp_path) for at in (models / "untied", expected, run))
    moved = sum(float((end[name] - start[name]).square().sum()) for name in start)
    apart = sum(float((end[name] - other[name]).square().sum()) for name in start)
    assert apart < 0.1 * moved


@pytest.mark.parametrize("case", RESUMED, ids=str)
def test_a_run_goes_on_with_other_processes_and_strategies(
    case: Case, runs: Path, models: Path, tmp_path: Path
) -> None:
    run, expected = runs / str(case), runs / reference(case)
    assert_same_events(run, expected, first_step=11)
    assert_same_parameters(run, expected, models / RECIPES[case.recipe][0], tmp_path)
    assert_same_state(run, expected, tmp_path)


def test_rows_are_the_same_everywhere(runs: Path) -> None:
    hashes = {
        tuple(event["rows_hash"] for event in read_events(runs / str(case) / "events.jsonl", "step"))
        for case in (*WHOLE, *ALONE)
        if case.recipe.startswith(("untied", "tied")) and not case.half
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("case", [*WHOLE, *BF16, *HALVES, *RESUMED], ids=str)
def test_processes_learn_from_every_row_of_a_step_once(case: Case, runs: Path) -> None:
    """From the rows that the engines were given, which `rows_hash` of the events, made of a plan, cannot know."""
    run = runs / str(case)
    config = load_config(run / "config.resolved.yaml", [])
    learned, expected = rows_by_step(run, case.processes), rows_of_stream(config, config.train.steps)
    assert len(learned) == len(steps_of(run)) > 0
    for one, other in zip(learned, expected[-len(learned) :], strict=True):
        assert sorted(one) == sorted(other)
        assert len({row_id for row_id, _ in one}) == len(one)


def test_blocks_were_compiled_once(runs: Path) -> None:
    events = read_events(runs / "sdpa-fsdp-compiled-x2" / "events.jsonl", "speed")
    first, *others = [event["graphs_compiled"] for event in events]
    assert first >= 2
    assert set(others) == {first}


@pytest.mark.parametrize("case", HALVES, ids=str)
def test_checkpoints_of_several_processes_are_ordinary_ones(case: Case, runs: Path, tmp_path: Path) -> None:
    folder = runs / str(case)
    written = list(read_events(folder / "events.jsonl", "checkpoint"))
    assert [event["step"] for event in written] == [5, 10]
    assert last_checkpoint(folder).name == "step-00000010"
    saved = tensors(last_checkpoint(folder), tmp_path)
    for name, parameter in load_model(folder).named_parameters():
        assert torch.equal(parameter, saved[f"/model/{name}"])
