"""A run that first tries the largest possible rows is the run that does not, under every strategy."""

from __future__ import annotations

from pathlib import Path

from tests.distributed.helpers import assert_same_events, run_cases

COMMON = [
    "train.steps=2",
    "train.batch={rows: 6, micro_batch_rows: 2}",
    "train.checkpoint.every=2",
    "train.canary=false",
]
STRATEGIES = {
    "ddp": ["train.strategy=ddp"],
    "fsdp": ["train.strategy=fsdp"],
    "adamw": ["train.strategy=fsdp", "optimizer.name=adamw", "optimizer.lr=0.001"],
    "zero1": ["train.strategy=deepspeed", "train.deepspeed.stage=1"],
    "zero2": ["train.strategy=deepspeed", "train.deepspeed.stage=2"],
    "zero3": ["train.strategy=deepspeed", "train.deepspeed.stage=3"],
    "zero1 in bf16": ["train.strategy=deepspeed", "train.deepspeed.stage=1", "train.precision=bf16"],
    "zero3 in bf16": ["train.strategy=deepspeed", "train.deepspeed.stage=3", "train.precision=bf16"],
}


def test_a_probed_run_is_the_run_that_was_not_probed(world: Path, tmp_path: Path) -> None:
    cases = [
        {
            "overrides": [*COMMON, *keys, f"train.probe_memory={probe}", f"output={tmp_path / name / probe}"],
            "resume": "auto",
        }
        for name, keys in STRATEGIES.items()
        for probe in ("false", "true")
    ]
    run_cases(2, world / "run.yaml", cases, tmp_path)
    for name in STRATEGIES:
        assert_same_events(tmp_path / name / "true", tmp_path / name / "false")
