"""Which of a folder's files are read, as transformers reads them, and what is refused in a sentence."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t0train.core.errors import UserError
from t0train.model import T5, T5Config, load_model
from tests.model.oracle import V11, hf_model, make_model
from tests.model.test_weights import write_hf, write_run

Tensors = dict[str, Tensor]


def state(model: T5) -> Tensors:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def folder_of(tmp_path: Path, tensors: Tensors | None = None, **config: Any) -> Path:
    """config.json of V11 and, if given, tensors in one safetensors file."""
    folder = write_hf(tmp_path / "model", make_model(V11), **config)
    (folder / "model.safetensors").unlink()
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, shards: dict[str, Tensors], places: dict[str, str] | None = None) -> Path:
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    listed = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {}, "weight_map": listed if places is None else places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def halves(tensors: Tensors, total: int = 2) -> dict[str, Tensors]:
    names = sorted(tensors)
    return {
        f"model-{i + 1:05d}-of-{total:05d}.safetensors": {name: tensors[name] for name in names[i::total]}
        for i in range(total)
    }


SAVES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@pytest.mark.parametrize("absent", range(4))
def test_of_several_saves_the_one_that_transformers_takes_is_read(tmp_path: Path, absent: int) -> None:
    """Four whole saves of four models lie in one folder; the first `absent` of them are then taken away."""
    models = [make_model(V11, seed) for seed in range(4)]
    folder = tmp_path / "model"
    hf_model(models[0]).save_pretrained(folder)
    write_shards(folder, halves(state(models[1])))
    torch.save(state(models[2]), folder / "pytorch_model.bin")
    torch.save(state(models[3]), folder / "shard.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(state(models[3]), "shard.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for name in SAVES[:absent]:
        (folder / name).unlink()

    loaded = load_model(folder)
    theirs = T5ForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(loaded.lm_head.weight, theirs.lm_head.weight)
    assert torch.equal(loaded.lm_head.weight, models[absent].lm_head.weight)
    assert loaded.report is not None
    assert set(SAVES[absent + 1 :]) <= set(loaded.report.unread)
    assert SAVES[absent] not in loaded.report.unread
    assert ("not read: " in str(loaded.report)) == bool(loaded.report.unread)


def test_a_variant_alone_is_not_taken_for_the_model(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save_file(state(make_model(V11)), folder / "model.fp16.safetensors")
    with pytest.raises(UserError, match=r"no weights.*found model\.fp16\.safetensors.*rename"):
        load_model(folder)
    save_file(state(make_model(V11, 1)), folder / "model.safetensors")
    loaded = load_model(folder)
    assert torch.equal(loaded.lm_head.weight, make_model(V11, 1).lm_head.weight)
    assert "not read: model.fp16.safetensors" in str(loaded.report)


@pytest.mark.parametrize("name", ["../model-00001-of-00001.safetensors", "/tmp/x.safetensors", "..", "a/b.safetensors"])
def test_an_index_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path)
    tensors = state(make_model(V11))
    save_file(tensors, tmp_path / "model-00001-of-00001.safetensors")
    write_shards(folder, {}, dict.fromkeys(tensors, name))
    with pytest.raises(UserError, match="lie in the folder of their index"):
        load_model(folder)


def _twice(shards: dict[str, Tensors]) -> None:
    first, second = shards
    shards[second]["decoder.final_layer_norm.weight"] = torch.zeros(32)
    shards[first]["decoder.final_layer_norm.weight"] = torch.ones(32)


def _unmapped(shards: dict[str, Tensors]) -> None:
    next(iter(shards.values()))["adapter.weight"] = torch.ones(2)


@pytest.mark.parametrize(("change", "message"), [(_twice, "different saves"), (_unmapped, "in no file")])
def test_shards_that_do_not_hold_what_the_index_says_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensors]], None], message: str
) -> None:
    shards = halves(state(make_model(V11)))
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    change(shards)
    with pytest.raises(UserError, match=message):
        load_model(write_shards(folder_of(tmp_path), shards, places))


def test_numbered_shards_of_two_saves_or_an_incomplete_index_are_refused(tmp_path: Path) -> None:
    two, three = halves(state(make_model(V11))), halves(state(make_model(V11)), 3)
    folder = folder_of(tmp_path)
    mixed = dict(list(two.items())[:1] + list(three.items())[1:])
    with pytest.raises(UserError, match="speak of 2 and 3; they are of different saves"):
        load_model(write_shards(folder, mixed))
    with pytest.raises(UserError, match="lists 2 numbered files, but their names speak of 3"):
        load_model(write_shards(folder, dict(list(three.items())[:2])))
    assert load_model(write_shards(folder, three)).report


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}', "[" * 99_999],
)
def test_what_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="is no index of weight files"):
        load_model(folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_finite_weights_of_other_floating_types_are_converted(tmp_path: Path, kind: torch.dtype) -> None:
    stored = {name: tensor.to(kind) for name, tensor in state(make_model(V11)).items()}
    loaded = load_model(folder_of(tmp_path, stored))
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in loaded.state_dict().items())
    assert loaded.shared.weight.dtype == torch.float32
    assert ("stored as float16" in str(loaded.report)) == (kind == torch.float16)


def test_values_that_the_model_cannot_hold_are_refused(tmp_path: Path) -> None:
    name = "decoder.final_layer_norm.weight"
    tensors = state(make_model(V11))
    for index, (kind, value) in enumerate([(torch.float16, 1e6), (torch.float16, torch.nan), (torch.float64, 1e39)]):
        stored = {**tensors, name: torch.full((32,), value, dtype=torch.float64).to(kind)}
        (tmp_path / str(index)).mkdir()
        with pytest.raises(
            UserError, match=rf"{name} holds infinite or undefined values \({str(kind)[6:]} in the file"
        ):
            load_model(folder_of(tmp_path / str(index), stored))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool, torch.int64])
def test_quantised_weights_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    tensors = state(make_model(V11))
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    tensors[name] = torch.zeros_like(tensors[name]).to(kind)
    with pytest.raises(UserError, match=rf"{name} is {str(kind)[6:]}; quantised"):
        load_model(folder_of(tmp_path, tensors))


def test_quantised_tensors_of_torch_are_refused(tmp_path: Path) -> None:
    tensors = state(make_model(V11))
    tensors["lm_head.weight"] = torch.quantize_per_tensor(tensors["lm_head.weight"], 0.1, 0, torch.qint8)
    folder = folder_of(tmp_path)
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="quantised"):
        load_model(folder)


NESTED: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "lightning": (lambda t: {"epoch": 3, "state_dict": t}, r"'epoch', 'state_dict' are no tensors.*under 'state_dict'"),
    "model": (lambda t: {"model": t}, r"'model' is no tensor.*under 'model' alone"),
    "loop": (lambda t: {"step": 3, "model": t, "optimizer": {"state": {}}}, r"'step', 'model', 'optimizer' are"),
    "list": (lambda t: list(t.values()), "holds a list"),
    "tensor": (lambda t: t["shared.weight"], "holds a Tensor"),
    "nothing": (lambda t: {}, "holds nothing"),
    "optimizer": (lambda t: {"state": {0: {"step": 1}}, "param_groups": []}, "'state', 'param_groups' are no tensors"),
    "numbers": (lambda t: dict(enumerate(t.values())), r"'0', '1', '2', '3', \.\.\. are"),
    "wrapped": (lambda t: {f"module.{name}": tensor for name, tensor in t.items()}, r"begin with 'module\.'"),
    "compiled": (lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()}, r"begin with '_orig_mod\.'"),
}


@pytest.mark.parametrize("kind", NESTED)
def test_checkpoints_of_training_programs_are_refused_by_what_they_hold(tmp_path: Path, kind: str) -> None:
    make, message = NESTED[kind]
    folder = folder_of(tmp_path)
    torch.save(make(state(make_model(V11))), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_a_whole_pickled_model_is_refused_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    torch.save(make_model(V11), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a pickle with t0train\.model\.t5\.T5 in it.*state_dict\(\) alone"):
        load_model(folder)


def test_files_of_the_time_before_torch_16_are_read(tmp_path: Path) -> None:
    folder, model = folder_of(tmp_path), make_model(V11)
    torch.save(state(model), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(load_model(folder).lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("length", [2**63, 2**40, 100_000_000, 17 << 20])
def test_a_header_that_would_take_much_memory_is_refused_at_once(tmp_path: Path, length: int) -> None:
    folder = folder_of(tmp_path)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", length) + b'{"a": ')
        file.truncate(20 << 20)
    with pytest.raises(UserError, match=f"header would take {length:,} bytes"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    folder = folder_of(tmp_path)
    if name.endswith("bin"):
        torch.save(state(make_model(V11)), folder / name)
    else:
        save_file(state(make_model(V11)), folder / name)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is damaged or no weights file"):
        load_model(folder)


def test_a_transposed_matrix_is_named(tmp_path: Path) -> None:
    tensors = state(make_model(V11))
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T.contiguous()
    with pytest.raises(UserError, match=r"lm_head\.weight is \[32, 97\] \(transposed\?\).*\[97, 32\]"):
        load_model(folder_of(tmp_path, tensors))


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="adapter"):
        load_model(tmp_path)


HF = V11.to_hf()
BAD_CONFIGS: dict[str, tuple[Any, str]] = {
    "list": ([HF], "an object with the model's sizes"),
    "null": (None, "an object with the model's sizes"),
    "text": ("t5", "an object with the model's sizes"),
    **{kind: ({**HF, "model_type": kind}, f'type is "{kind}"') for kind in ("bert", "mt5", "umt5", "longt5")},
    "no type": ({key: value for key, value in HF.items() if key != "model_type"}, "type is null"),
    "incomplete": ({key: value for key, value in HF.items() if key != "d_ff"}, "has no 'd_ff'"),
    "deep": ({**HF, "num_layers": 10**9, "num_decoder_layers": 10**9}, "num_layers is 1000000000"),
    "wide": ({**HF, "d_model": 10**12}, "d_model is 1000000000000"),
    "negative": ({**HF, "num_heads": -3}, "num_heads is -3"),
    "zero": ({**HF, "d_kv": 0}, "d_kv is 0"),
    "half": ({**HF, "d_ff": 48.5}, r"d_ff is 48\.5"),
    "word": ({**HF, "d_ff": "48"}, 'd_ff is "48"'),
    "true": ({**HF, "num_layers": True, "num_decoder_layers": True}, "num_layers is true"),
    "nothing": ({**HF, "vocab_size": None}, "vocab_size is null"),
    "vocabulary": ({**HF, "vocab_size": 10**10}, "vocab_size is 10000000000"),
    "buckets": ({**HF, "relative_attention_num_buckets": 10**11}, "relative_buckets is 100000000000"),
    "dropout": ({**HF, "dropout_rate": 1.5}, r"dropout rate is 1\.5"),
    "epsilon": ({**HF, "layer_norm_epsilon": float("nan")}, "epsilon is NaN"),
    "depths": ({**HF, "num_decoder_layers": 0}, "2 encoder and 0 decoder layers"),
    "quantised": ({**HF, "quantization_config": {"load_in_8bit": True}}, "quantised weights"),
    "other file": ({**HF, "transformers_weights": "other.safetensors"}, "rename it to model.safetensors"),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_a_config_that_is_no_t5_is_refused_before_anything_is_allocated(tmp_path: Path, kind: str) -> None:
    content, message = BAD_CONFIGS[kind]
    folder = folder_of(tmp_path, state(make_model(V11)))
    (folder / "config.json").write_text(json.dumps(content))
    started = time.perf_counter()
    with pytest.raises(UserError, match=message):
        load_model(folder)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 99_999, b'{"d_model": ' + b"9" * 5000 + b"}"])
def test_a_config_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path, state(make_model(V11)))
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 1 << 17, "d_ff": 1 << 20}, "describes .* parameters, but state/ holds"),
        ({"d_model": 1e9}, "d_model"),
    ],
)
def test_a_checkpoint_whose_model_could_not_lie_in_its_files_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_run(tmp_path, [1])
    description = tmp_path / "checkpoints" / "step-00000001" / "model.json"
    description.write_text(json.dumps({**V11.to_json(), **change}))
    started = time.perf_counter()
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)
    assert time.perf_counter() - started < 2


def test_sizes_of_every_published_t5_are_accepted() -> None:
    widest = T5Config(32_128, 1024, 128, 65_536, 24, 128, is_gated=False, tie_word_embeddings=True)  # T5 1.0 11B
    assert widest.num_heads * widest.d_kv == 16_384
