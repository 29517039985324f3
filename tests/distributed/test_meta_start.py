"""Under FSDP no process ever holds the whole model: it begins without memory, and each fills its own part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from t0train.checkpoint import CheckpointWriter, Manifest
from t0train.config import load_config
from t0train.config.architecture import T5Config
from t0train.config.deviations import VOCABULARY
from t0train.data import load_vocabulary
from t0train.distributed import World
from t0train.model import T5, init_weights
from t0train.training import train
from tests.distributed.helpers import assert_same_events, run_cases, torchrun
from tests.training.conftest import VOCABULARY_SIZE

COMMON = ["train.steps=3", "train.batch={rows: 6, micro_batch_rows: 2}", "train.checkpoint.every=3"]


def test_a_model_that_is_filled_in_parts_trains_as_the_whole_one(world: Path, models: Path, tmp_path: Path) -> None:
    """With packing self-check, memory probe and activation checkpointing: they change nothing."""
    cases = []
    starts = {"random": [], "loaded": [f"model.init_from={models / 'untied'}", "model.size=''"]}
    extra = {
        "random": ["train.probe_memory=true", "train.activation_checkpointing=block"],
        "loaded": ["train.activation_checkpointing=selective"],
    }
    for name, start in starts.items():
        train(load_config(world / "run.yaml", [*COMMON, *start, f"output={tmp_path / 'whole' / name}"]))
        output = f"output={tmp_path / 'parts' / name}"
        overrides = [*COMMON, *start, *extra[name], output, "train.strategy=fsdp"]
        cases.append({"overrides": overrides, "resume": "auto"})
    run_cases(2, world / "run.yaml", cases, tmp_path)
    for name in starts:
        assert_same_events(tmp_path / "parts" / name, tmp_path / "whole" / name)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A model of 240 MB in two layouts: the run folder `run`, and the folder `hf` in Hugging Face's."""
    folder = tmp_path_factory.mktemp("large")
    config = T5Config(VOCABULARY_SIZE, 256, 64, 2048, num_layers=16, num_heads=4)
    model = T5(config)
    init_weights(dict(model.named_parameters()), config, seed=3)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    identity = {VOCABULARY: load_vocabulary(world / "spiece.model").fingerprint}
    writer = CheckpointWriter(folder / "run" / "checkpoints", keep=1, world=World())
    writer.start({"model": parameters, "optimizer": {}}, config, Manifest(0, (0, 0), identity, ""))
    (folder / "hf").mkdir()
    save_file(parameters, folder / "hf" / "model.safetensors")
    (folder / "hf" / "config.json").write_text(json.dumps(config.to_hf()))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's memory is read as Linux tells it")
def test_no_process_ever_holds_the_whole_model(world: Path, models: Path, large: Path, tmp_path: Path) -> None:
    """Each of two holds a half and one whole parameter at a time. (The self-check's two-layer model comes earlier.)"""
    starts = {"imports": models / "untied", "hf": large / "hf", "run": large / "run", "copies": large / "hf"}
    cases = {
        name: [
            f"output={tmp_path / name}",
            f"model.init_from={start}",
            "model.size=''",
            f"train.strategy={'ddp' if name == 'copies' else 'fsdp'}",
        ]
        for name, start in starts.items()
    }
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script = str(Path(__file__).with_name("start_memory.py"))
    torchrun(2, script, str(world / "run.yaml"), str(tmp_path / "cases.json"))
    whole = (large / "hf" / "model.safetensors").stat().st_size
    for rank in range(2):
        grown = json.loads((tmp_path / f"grown-{rank}.json").read_text())
        assert grown["copies"] > 0.95 * whole, "what is measured is the model"
        assert max(grown["hf"], grown["run"]) < 0.65 * whole
