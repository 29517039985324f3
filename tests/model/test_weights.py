"""What is loaded, what is refused, and that both say so."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from t0train.checkpoint import CheckpointWriter, Manifest
from t0train.config.schema import OptimizerConfig
from t0train.core.errors import UserError
from t0train.distributed import World
from t0train.model import T5, Batch, T5Config, find_weights, load_model
from t0train.optim import build_optimizer, optimizer_state
from tests.model.oracle import V10, V11, as_rows, hf_model, make_model, random_examples

CONFIGS = {"v1.1": V11, "v1.0": V10}
Tensors = dict[str, Tensor]


def write_hf(folder: Path, model: T5, change: Callable[[Tensors], Any] = lambda tensors: None, **config: Any) -> Path:
    """A folder in Hugging Face's layout, written without our exporter; `change` may spoil the tensors."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**model.config.to_hf(), **config}))
    return folder


def batch() -> Batch:
    return Batch.from_rows(as_rows([random_examples([(9, [4]), (12, [5])])], 24, 10))


@pytest.mark.parametrize("version", CONFIGS)
def test_reads_what_transformers_writes(tmp_path: Path, version: str) -> None:
    model = make_model(CONFIGS[version])
    hf_model(model).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, attention="eager", dropout=0.0)
    assert torch.equal(loaded(batch()), model(batch()))
    assert loaded.config == model.config
    assert loaded.report is not None
    assert loaded.report.tie_word_embeddings == model.config.tie_word_embeddings
    assert hasattr(loaded, "lm_head") != model.config.tie_word_embeddings


def test_reads_sharded_safetensors_and_bin(tmp_path: Path) -> None:
    model = make_model(V11)
    names = sorted(model.state_dict())
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    sharded = write_hf(tmp_path / "sharded", model)
    (sharded / "model.safetensors").unlink()
    for file, of_file in shards.items():
        save_file({name: model.state_dict()[name] for name in of_file}, sharded / file)
    index = {"weight_map": {name: file for file, of_file in shards.items() for name in of_file}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))

    pickled = write_hf(tmp_path / "pickled", model)
    (pickled / "model.safetensors").unlink()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")

    for folder in (sharded, pickled):
        loaded = load_model(folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    (sharded / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of 2 weight files.*b\.safetensors"):
        load_model(sharded)


def test_copies_of_the_embedding_and_the_old_cross_bias_are_reported(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
        tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
        tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 3)

    report = load_model(write_hf(tmp_path, make_model(V11), add)).report
    assert report is not None
    assert len(report.copies) == 2
    assert len(report.ignored) == 1
    assert "untied, unscaled" in str(report)
    assert "EncDecAttention.relative_attention_bias" in str(report)


def test_an_embedding_named_only_by_its_users_is_found(tmp_path: Path) -> None:
    def rename(tensors: Tensors) -> None:
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")

    model = make_model(V11)
    assert torch.equal(load_model(write_hf(tmp_path, model, rename)).shared.weight, model.shared.weight)


SPOILED: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "no head": (lambda t: t.pop("lm_head.weight"), r"head of its own.*no lm_head\.weight"),
    "tied head": (lambda t: t.update({"lm_head.weight": t["shared.weight"].clone()}), "equal to the embedding"),
    "other embedding": (lambda t: t.update({"encoder.embed_tokens.weight": t["lm_head.weight"].clone()}), "differs"),
    "missing": (lambda t: t.pop("encoder.final_layer_norm.weight"), r"lacks 1 tensors \(encoder\.final_layer_norm"),
    "unexpected": (lambda t: t.update({"adapter.weight": torch.ones(2)}), r"unknown 1 tensors \(adapter\.weight"),
    "shape": (lambda t: t.update({"lm_head.weight": torch.ones(98, 32)}), r"\[98, 32\].*\[97, 32\]"),
    "infinite": (lambda t: t["lm_head.weight"].view(-1)[:1].fill_(torch.inf), "infinite"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_file_that_is_another_model_is_refused(tmp_path: Path, kind: str) -> None:
    change, message = SPOILED[kind]
    with pytest.raises(UserError, match=message):
        load_model(write_hf(tmp_path, make_model(V11), change))


def test_a_t5_10_with_a_head_that_its_config_denies_is_refused(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = torch.ones(97, 32)

    model = make_model(V10)
    with pytest.raises(UserError, match="tie_word_embeddings"):
        load_model(write_hf(tmp_path / "contradiction", model, add))
    said = write_hf(tmp_path / "said", model, add, tie_word_embeddings=False, scale_decoder_outputs=False)
    assert not load_model(said).config.tie_word_embeddings


def test_float16_and_nonsense_are_refused(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model", make_model(V11))
    assert load_model(folder, dtype=torch.bfloat16).shared.weight.dtype == torch.bfloat16
    with pytest.raises(UserError, match="65,504"):
        load_model(folder, dtype=torch.float16)
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="no model folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no run folder"):
        load_model(folder, step=3)
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="damaged"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load_model(folder)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="num_layers"):
        load_model(folder)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = write_hf(tmp_path / "model", make_model(V11))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"shared.weight": Evil()}))
    with pytest.raises(UserError, match="damaged or no weights"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


def write_run(
    folder: Path, steps: list[int], config: T5Config = V11, identity: dict[str, Any] | None = None
) -> list[T5]:
    models = []
    for step in steps:
        model = make_model(config, seed=step)
        optimizer = build_optimizer(model.named_parameters(), OptimizerConfig())
        manifest = Manifest(step=step, rows=(0, 0), identity=identity or {}, config="")
        state = {"model": model.state_dict(), "optimizer": optimizer_state(optimizer)}
        CheckpointWriter(folder / "checkpoints", keep=9, world=World()).start(state, model.config, manifest)
        models.append(model)
    return models


@pytest.mark.parametrize("version", CONFIGS)
def test_reads_runs(tmp_path: Path, version: str) -> None:
    first, second = write_run(tmp_path, [3, 12], CONFIGS[version])
    assert torch.equal(load_model(tmp_path, attention="eager")(batch()), second(batch()))
    assert torch.equal(load_model(tmp_path, step=3, attention="eager")(batch()), first(batch()))
    chosen = load_model(tmp_path / "checkpoints" / "step-00000003", attention="eager")
    assert torch.equal(chosen(batch()), first(batch()))
    with pytest.raises(UserError, match="it has 3, 12"):
        load_model(tmp_path, step=4)
    newest = find_weights(tmp_path)
    (newest / "manifest.json").unlink()  # as if it had not been finished
    assert find_weights(tmp_path).name == "step-00000003"


def test_damaged_checkpoints_are_noticed(tmp_path: Path) -> None:
    write_run(tmp_path, [1])
    [tensors] = (tmp_path / "checkpoints" / "step-00000001" / "state").glob("*.distcp")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(UserError, match=f"damaged: state/{tensors.name} has SHA-256"):
        load_model(tmp_path)
    tensors.unlink()
    with pytest.raises(UserError, match="a file is missing"):
        load_model(tmp_path)


def test_the_hub_is_asked_for_weights_only_and_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    model = make_model(V11)
    write_hf(tmp_path / "hub", model)
    (tmp_path / "hub" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "hub" / "pytorch_model.bin")
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if name == "nobody/here":
            raise LocalEntryNotFoundError("no network")
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert torch.equal(load_model("google/some-t5").shared.weight, model.shared.weight)
    assert ["*.safetensors" in patterns for patterns in asked] == [True, False]  # .bin only where there is nothing else
    with pytest.raises(UserError, match=r"nobody/here.*no network"):
        load_model("nobody/here")
