from __future__ import annotations

import json
import os
import re
import resource
import signal
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import typer
from safetensors import SafetensorError
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5ForConditionalGeneration
from typer.testing import CliRunner

from t0train.cli import export
from t0train.config import RunConfig, dump_config
from t0train.config.deviations import VOCABULARY, kept_keys
from t0train.config.schema import DataConfig, TrainConfig
from t0train.core.errors import UserError
from t0train.data import Vocabulary, refuse_other_vocabulary
from t0train.model import Batch, T5Config, export_model, init_model, load_model, to_huggingface
from tests.data.test_vocabulary import WITH_SPECIAL_NAMES
from tests.model.conftest import train_vocabulary
from tests.model.oracle import V10, V11, as_rows, close, hf_logits, make_model, random_examples
from tests.model.test_weights import write_run

TEXTS = ["Is this review positive or negative? I loved it.", "", "  two  blanks,\ttab ", "naïve café; 1,234.5 % (x)!"]


@pytest.mark.parametrize("config", [V11, V10], ids=["v1.1", "v1.0"])
def test_hugging_face_reads_the_same_model(tmp_path: Path, vocabulary: Path, config: T5Config) -> None:
    model = make_model(config).train()
    export_model(model, tmp_path / "out", vocabulary, card="## Differences\n\n- none")
    assert model.training
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert (theirs.lm_head.weight is theirs.shared.weight) == model.config.tie_word_embeddings
    [example] = random_examples([(14, [6])])
    expected = model(Batch.from_rows(as_rows([[example]], 14, 6)))[0]
    assert close(hf_logits(theirs, example.inputs, example.targets[0]), expected)

    again = load_model(tmp_path / "out")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert "## Differences" in (tmp_path / "out" / "README.md").read_text()
    assert theirs.generation_config.decoder_start_token_id == 0
    assert [file for file in tmp_path.iterdir() if file.name != "out"] == []


@pytest.mark.parametrize("config", [V11, V10], ids=["v1.1", "v1.0"])
def test_the_twin_in_memory_is_the_model_that_an_export_loads_as(
    tmp_path: Path, vocabulary: Path, config: T5Config
) -> None:
    model = make_model(config).eval()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(export_model(model, tmp_path / "out", vocabulary)).eval()
    twin = to_huggingface(model)
    [example] = random_examples([(14, [6])])
    before = hf_logits(twin, example.inputs, example.targets[0])
    assert torch.equal(before, hf_logits(loaded, example.inputs, example.targets[0]))

    twin.tie_weights()
    before.sum().backward()
    assert twin.shared.weight.data_ptr() == model.shared.weight.data_ptr()
    assert twin.lm_head.weight.data_ptr() == model.head_weight.data_ptr()
    assert twin.encoder.embed_tokens.weight is twin.decoder.embed_tokens.weight is twin.shared.weight
    assert twin.shared.weight.grad is not None
    assert model.shared.weight.grad is None


@pytest.mark.parametrize("config", [V11, V10], ids=["v1.1", "v1.0"])
def test_the_code_of_the_card_keeps_the_head(
    tmp_path: Path, vocabulary: Path, config: T5Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some programs, such as lm-eval, tie the weights once more after loading."""
    model = make_model(config)
    card = (export_model(model, tmp_path / "out", vocabulary) / "README.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"print": lambda text: None}
    exec(code, names)
    names["model"].tie_weights()
    head = names["model"].lm_head.weight
    assert torch.equal(head, model.shared.weight if config.tie_word_embeddings else model.lm_head.weight)
    assert ("tie_word_embeddings = False" in card) != config.tie_word_embeddings


def test_the_card_says_what_the_vocabulary_lacks(tmp_path: Path, t5_vocabulary: Path) -> None:
    """The characters are those that T5's vocabulary has no piece for (reference: sentencepiece's unknown id, 2)."""
    pieces = SentencePieceProcessor(model_file=str(t5_vocabulary))
    lost = [character for character in "{}[]<>\\~^_|#" if 2 in pieces.encode(character)]
    assert {"{", "}", "<"} <= set(lost)
    card = (export_model(init_model("tiny", d_model=16), tmp_path / "out", t5_vocabulary) / "README.md").read_text()
    assert f"no `{' '.join(lost)}`, and line breaks are read as spaces" in card
    assert "Prompts and training texts are English" in card


def test_the_exported_tokenizer_gives_the_vocabularys_ids(tmp_path: Path, vocabulary: Path) -> None:
    ours = Vocabulary(vocabulary)
    export_model(make_model(V11), tmp_path / "out", vocabulary)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text).tolist()
    assert theirs(TEXTS[0]).input_ids[-1] == 1
    assert len(theirs) == ours.size


def test_a_vocabulary_that_spells_unknown_characters_as_bytes(tmp_path: Path) -> None:
    path = train_vocabulary(tmp_path, byte_fallback=True)
    export_model(init_model("tiny", d_model=16, vocab_size=320), tmp_path / "out", path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "out"), Vocabulary(path)
    for text in [*TEXTS, "zq 日本"]:
        ids = ours.encode(text).tolist()
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs.decode([*ids, 1], skip_special_tokens=True) == ours.decode(ids)
    assert len(theirs) == ours.size


def test_the_real_vocabulary_keeps_its_sentinels(tmp_path: Path, t5_vocabulary: Path) -> None:
    export_model(init_model("tiny", d_model=16), tmp_path / "out", t5_vocabulary)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False).input_ids == Vocabulary(t5_vocabulary).encode(text).tolist()
    assert theirs.convert_tokens_to_ids(["\u2581<extra_id_0>", "\u2581<extra_id_99>"]) == [32_099, 32_000]
    assert theirs("The <extra_id_0> walks", add_special_tokens=False).input_ids == [37, 32_099, 10_681]


def test_special_names_in_texts_are_read_as_in_training(tmp_path: Path, t5_vocabulary: Path) -> None:
    export_model(init_model("tiny", d_model=16), tmp_path / "out", t5_vocabulary)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "out"), Vocabulary(t5_vocabulary)
    for text in WITH_SPECIAL_NAMES:
        ids = ours.encode(text).tolist()
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs(text).input_ids == [*ids, 1]
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"  # which releases before transformers 5 know, too
    )
    refuse_other_vocabulary(ours, tmp_path / "out")


def test_a_used_folder_is_left_alone(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        export_model(make_model(V11), tmp_path, vocabulary)
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(UserError, match="no vocabulary"):
        export_model(make_model(V11), tmp_path / "out", tmp_path / "nothing.model")
    large = train_vocabulary(tmp_path, byte_fallback=True)
    with pytest.raises(UserError, match="97 rows"):
        export_model(make_model(V11), tmp_path / "out", large)
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_that_may_be_a_users(tmp_path: Path, vocabulary: Path) -> None:
    model = make_model(V11)
    earlier = export_model(model, tmp_path / "earlier", vocabulary)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for folder, words in (
        (earlier, "not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "link", "symbolic link"),
    ):
        with pytest.raises(UserError, match=words):
            export_model(model, folder, vocabulary)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (export_model(model, tmp_path / "empty", vocabulary) / "config.json").is_file()


@pytest.mark.parametrize("share", [0.01, 0.9, 1.05])
def test_a_file_system_that_takes_no_more_is_said_and_nothing_stays(
    tmp_path: Path, vocabulary: Path, share: float
) -> None:
    """No file may be larger than a share of the weights, which are the first file; the vocabulary's are larger."""
    model = make_model(V11)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert 1.1 * weights < vocabulary.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * weights), hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*larger than the file system"):
            export_model(model, tmp_path / "out", vocabulary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_words_of_safetensors(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(state: dict[str, torch.Tensor], folder: str) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(huggingface_hub, "save_torch_state_dict", refuse)
    with pytest.raises(UserError, match="the disk is full"):
        export_model(make_model(V11), tmp_path / "out", vocabulary)
    assert list(tmp_path.iterdir()) == []


def _export_and_end(folder: Path, vocabulary: Path, ready: int) -> None:
    """In a forked process, which a signal ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a KeyboardInterrupt could reach the test runner that was forked
    os.write(ready, b"x")
    try:
        export_model(make_model(V11), folder, vocabulary)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_killed_exports_leave_nothing_once_the_next_one_has_begun(tmp_path: Path, vocabulary: Path) -> None:
    started = time.perf_counter()
    export_model(make_model(V11), tmp_path / "first", vocabulary)
    whole = time.perf_counter() - started
    moments, left = np.random.default_rng(0), 0
    for number in range(24):
        signum = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3]
        reader, writer = os.pipe()
        if not (child := os.fork()):
            _export_and_end(tmp_path / f"out{number}", vocabulary, writer)
        os.read(reader, 1)
        time.sleep(moments.uniform(0, whole))
        os.kill(child, signum)
        os.waitpid(child, 0)
        left += any(path.name.startswith(f".out{number}.") for path in tmp_path.iterdir())
    assert left  # the test would prove nothing otherwise
    export_model(make_model(V11), tmp_path / "last", vocabulary)
    print(f"{left} of 24 killed exports left a work folder")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for path in tmp_path.iterdir():  # what has its name is whole
        assert (path / "tokenizer.json").is_file()
        assert load_model(path).report


def test_an_export_that_reads_back_differently_leaves_nothing(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_damaged(state: dict[str, torch.Tensor], folder: str) -> None:
        name = "decoder.final_layer_norm.weight"
        save({**state, name: state[name].nextafter(state[name] + 1)}, folder)

    save = huggingface_hub.save_torch_state_dict
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "save_torch_state_dict", save_damaged)
        with pytest.raises(UserError, match=r"by t0train, differs in decoder\.final_layer_norm"):
            export_model(make_model(V11), tmp_path / "out", vocabulary)
    other = T5ForConditionalGeneration.from_pretrained(export_model(make_model(V11, 1), tmp_path / "other", vocabulary))
    monkeypatch.setattr(T5ForConditionalGeneration, "from_pretrained", lambda _: other)
    with pytest.raises(UserError, match="by transformers, gives other logits"):
        export_model(make_model(V11), tmp_path / "out", vocabulary)
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_the_command_exports_a_run(tmp_path: Path, vocabulary: Path) -> None:
    config = RunConfig(name="mine", data=DataConfig(vocabulary=str(vocabulary)), train=TrainConfig(steps=4))
    identity = {**kept_keys(config), VOCABULARY: Vocabulary(vocabulary).fingerprint}
    [model] = write_run(tmp_path / "run", [4], identity=identity)
    (tmp_path / "run" / "config.resolved.yaml").write_text(dump_config(config))
    app = typer.Typer()
    app.command()(export.command)
    result = CliRunner().invoke(app, [str(tmp_path / "run"), str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "out")
    assert torch.equal(load_model(tmp_path / "out").shared.weight, model.shared.weight)
    assert "train.steps is 4 where T0 has 12200" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="no complete checkpoint of step 5; it has 4"):
        CliRunner().invoke(app, [str(tmp_path / "run"), str(tmp_path / "x"), "--step", "5"], catch_exceptions=False)
