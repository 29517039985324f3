"""The same model in Hugging Face's classes: as a folder that they load (export), or in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, refuse_foreign, write_atomic, write_json
from t0train.core.text import escape_markdown
from t0train.data import Vocabulary
from t0train.model.batch import Batch
from t0train.model.checks import check_vocabulary_size
from t0train.model.t5 import T5
from t0train.model.weights import open_weights

_TOLERANCE = 1e-4  # of the largest logit: Hugging Face's class sums in another order


def export_model(model: T5, folder: Path, vocabulary_path: Path, card: str = "", header: str = "") -> Path:
    """Write safetensors, config.json, tokenizer files, generation_config.json and a model card (README.md).

    The files are read back before the folder gets its final name: our own loader must find every tensor bit for bit,
    and the model that transformers loads must give the same logits for a fixed batch. Both memory-map the files, and
    weights are written in several files of at most 5 GB, so that memory holds no second copy of the weights.

    Args:
        model: what to export; neither moved nor changed.
        folder: new or empty folder.
        vocabulary_path: the sentencepiece model that the run was trained with.
        card: Markdown appended to the model card, e.g. how the run differs from T0.
        header: lines of YAML added to the model card's header, e.g. the data sets.

    Raises:
        UserError: the folder is in use or cannot be written, or what was read back differs.
    """
    from huggingface_hub import save_torch_state_dict

    folder = Path(folder)
    refuse_foreign(folder)  # before the work
    if not vocabulary_path.is_file():
        raise UserError(f"there is no vocabulary {vocabulary_path}; give the run's sentencepiece model.")
    vocabulary = Vocabulary(vocabulary_path)
    check_vocabulary_size(vocabulary, model.config)
    batch = _probe(model)
    expected = _logits(model, batch)
    with atomic_folder(folder) as temporary:
        save_torch_state_dict(dict(model.state_dict()), str(temporary))
        write_json(temporary / "config.json", {**model.config.to_hf(), "dtype": _dtype(model)})
        write_json(
            temporary / "generation_config.json", {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
        )
        _write_tokenizer(temporary, vocabulary)
        write_atomic(temporary / "README.md", _card(model, vocabulary, folder.name, card, header))
        for file in temporary.iterdir():  # safetensors writes private files
            file.chmod(0o644)
        _compare_tensors(model, temporary)
        _compare_logits(expected, _hf_logits(temporary, batch))
    return folder


def to_huggingface(model: T5, **settings: Any) -> Any:
    """`T5ForConditionalGeneration` around the model's own tensors: it shares their memory, but not their gradients.

    Args:
        model: the model.
        **settings: further fields of transformers' config, e.g. `attn_implementation="eager"`.

    Returns:
        In evaluation mode, on the model's device.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    with torch.device("meta"):
        twin = T5ForConditionalGeneration(T5Config(**model.config.to_hf(), **settings))
    weights = dict(model.state_dict())
    embedding = weights["shared.weight"]
    copies = {f"{stack}.embed_tokens.weight": embedding for stack in ("encoder", "decoder")}
    twin.load_state_dict({"lm_head.weight": embedding, **weights, **copies}, assign=True)
    tied = [twin.encoder.embed_tokens, twin.decoder.embed_tokens]
    if model.config.tie_word_embeddings:
        tied.append(twin.lm_head)
    else:  # transformers 5 sets the flag to true, and would silently tie the head at the next occasion
        twin.config.tie_word_embeddings = False
        twin.all_tied_weights_keys.pop("lm_head.weight", None)
    for module in tied:
        module.weight = twin.shared.weight
    return twin.eval()


def _dtype(model: T5) -> str:
    return str(model.shared.weight.dtype).removeprefix("torch.")


def _write_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    """The sentencepiece model, and transformers' own form of it (tokenizer.json), which needs no other library.

    T5's tokenizer class recognises special tokens anywhere in a text. In training "</s>" is plain text, and a sentinel
    is recognised only as a word of its own. So the general class is used, which can be configured to do the same.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    shutil.copyfile(vocabulary.path, folder / "spiece.model")
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 1024}
    config = folder / "tokenizer_config.json"
    write_json(config, {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **special})
    read = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_as_trained(read, vocabulary), split_special_tokens=True, **special
    )
    tokenizer.save_pretrained(folder)
    saved = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {**saved, "tokenizer_class": "PreTrainedTokenizerFast"})  # the name that all releases know


def _as_trained(tokenizer: Any, vocabulary: Vocabulary) -> Any:
    """Make a `tokenizers.Tokenizer` encode as in training, by editing its JSON form.

    It gets the appended sentinels; names of special tokens in a text are split in two, so that they are never
    recognised; and it falls back to bytes for unknown characters where the vocabulary does (T5's does not).
    """
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    if vocabulary.sentinels:
        state["model"]["vocab"] += [[piece, 0.0] for piece in vocabulary.pieces()[-vocabulary.sentinels :]]
    names = {"type": "Split", "pattern": {"Regex": "<(?=/s>|pad>|unk>)"}, "behavior": "MergedWithPrevious"}
    state["pre_tokenizer"]["pretokenizers"].append({**names, "invert": False})
    if vocabulary.spells_bytes:
        state["model"]["byte_fallback"] = True
        state["decoder"] = {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        }
    return Tokenizer.from_str(json.dumps(state))


_TIES = """This model has a head of its own, and transformers 5 sets `tie_word_embeddings` of every T5 to true when it
reads a config.json. Loading is right (with a warning that nothing is tied), but whatever ties the weights later, such
as `model.tie_weights()` in some evaluation programs, **silently overwrites the head with the embedding**. Therefore set
`model.config.tie_word_embeddings = False` after loading. Do not pass it to `from_pretrained`, which then draws the
embeddings of encoder and decoder at random.

"""


def _limits(vocabulary: Vocabulary) -> str:
    """What the model cannot be expected to do, judging by its vocabulary."""
    lost = [character for character in "{}[]<>\\~^_|#" if vocabulary.unknown_id in vocabulary.encode(character)]
    reasons = [f"its vocabulary has no `{' '.join(lost)}`"] if lost else []
    if "\n" not in vocabulary.decode(vocabulary.encode("a\nb")):
        reasons.append("line breaks are read as spaces")
    code = f" It is not meant for code: {', and '.join(reasons)}." if reasons else ""
    return f"Prompts and training texts are English; other languages are not to be expected of it.{code}"


def _card(model: T5, vocabulary: Vocabulary, name: str, text: str, header: str) -> str:
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    version = "1.1" if config.is_gated else "1.0"
    head = "the embedding (tied, scaled)" if config.tie_word_embeddings else "its own (untied, unscaled)"
    ties = "" if config.tie_word_embeddings else _TIES
    untie = "" if config.tie_word_embeddings else "model.config.tie_word_embeddings = False  # see above\n"
    return (
        f"""---
library_name: transformers
pipeline_tag: text2text-generation
{header}---
# {escape_markdown(name)}

A T5 {version} with {parameters:,} parameters, trained and exported with t0train.

| | |
|---|---|
| d_model, d_ff, heads x d_kv | {config.d_model}, {config.d_ff}, {config.num_heads} x {config.d_kv} |
| layers | {config.num_layers} encoder, {config.num_layers} decoder |
| vocabulary rows | {config.vocab_size:,} |
| head | {head} |
| parameters stored as | {_dtype(model)} |

{ties}{_limits(vocabulary)}

Inputs were trained **without** a closing `</s>`, targets with one, as in T0: tokenize inputs with
`add_special_tokens=False`. Do not run it in float16: activations of T5 exceed its range.

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({json.dumps(name, ensure_ascii=False)})
model = AutoModelForSeq2SeqLM.from_pretrained({json.dumps(name, ensure_ascii=False)})
{untie}prompt = "Is this review positive or negative? I loved it."
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
```
{text}""".rstrip()
        + "\n"
    )


def _probe(model: T5) -> Batch:
    """One unpacked row of arbitrary ids."""
    generator = np.random.default_rng(0)
    inputs, targets = (torch.from_numpy(generator.integers(2, model.config.vocab_size, (1, n))) for n in (24, 8))
    ones = torch.ones_like(targets)
    shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
    return Batch(inputs, torch.ones_like(inputs), shifted, targets, ones, ones, torch.zeros(1, dtype=torch.long))


@torch.no_grad()
def _logits(model: T5, batch: Batch) -> Tensor:
    """Logits without dropout and autocast, on the CPU."""
    device = model.shared.weight.device
    moved = batch.to(device)
    training = model.training
    model.eval()
    try:
        return cast(Tensor, model(moved)).float().cpu()
    finally:
        model.train(training)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars, and its warning of an untied head, which is right for T5 1.1."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@torch.no_grad()
def _hf_logits(folder: Path, batch: Batch) -> Tensor:
    from transformers import T5ForConditionalGeneration

    with quiet_transformers():
        model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    logits: Tensor = model(input_ids=batch.input_ids, decoder_input_ids=batch.decoder_input_ids, use_cache=False).logits
    return logits.float()


def _compare_tensors(model: T5, folder: Path) -> None:
    weights = open_weights(folder)
    found = weights.tensors or {}
    wrong = [name for name, own in model.named_parameters() if not torch.equal(own.cpu(), found[name])]
    if wrong or weights.config.to_hf() != model.config.to_hf():
        raise UserError(
            f"the exported model, read back by t0train, differs in {wrong[0] if wrong else 'config.json'}; the disk "
            "may be failing. Nothing was written."
        )


def _compare_logits(expected: Tensor, found: Tensor) -> None:
    difference = float((expected - found).abs().max() / expected.abs().max())
    if not difference <= _TOLERANCE:
        raise UserError(
            f"the exported model, read back by transformers, gives other logits: they differ by {difference:.1e} of "
            f"the largest, {_TOLERANCE:.0e} is allowed. Nothing was written."
        )
