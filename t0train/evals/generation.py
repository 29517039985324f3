"""Text generation by Hugging Face's `generate`, on prompts tokenised as in training: without EOS on the input."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from t0train.core.errors import UserError
from t0train.core.files import remove_leftovers, work_folder
from t0train.data import Vocabulary
from t0train.evals.models import ModelReference, open_vocabulary, placed
from t0train.model import (
    T5,
    check_vocabulary_size,
    export_model,
    find_weights,
    load_model,
    open_run_checkpoint,
    open_weights,
    quiet_transformers,
    to_huggingface,
)


class Generator:
    """A model that writes text."""

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        """Take transformers' T5 as it is; `open` and `of` make one."""
        self.vocabulary = vocabulary
        self._model = model

    @classmethod
    def open(cls, source: str, device_map: str | None = None) -> Generator:
        """Load a run (its selected checkpoint, else the newest), a checkpoint, an exported folder, or a hub id.

        Args:
            source: which of these.
            device_map: accelerate's placement over devices: `auto` spreads a model that one GPU cannot hold. Default:
                the GPU if there is one.

        Raises:
            UserError: nothing there, no T5, or a vocabulary that the model was not trained with.
        """
        if found := open_run_checkpoint(source):
            vocabulary, folder = found.vocabulary, found.path
        else:
            folder = find_weights(source)
            vocabulary = open_vocabulary(ModelReference(source))
        if not (folder / "model.json").is_file():
            check_vocabulary_size(vocabulary, open_weights(folder).config)  # refuses what transformers would repair
            return cls(_load(folder, device_map), vocabulary)
        model = load_model(folder)
        if device_map is None:
            check_vocabulary_size(vocabulary, model.config)
            return cls.of(placed(model), vocabulary)
        with _temporary_folder() as temporary, quiet_transformers():
            return cls(_load(export_model(model, temporary / "model", vocabulary.path), device_map), vocabulary)

    @classmethod
    def of(cls, model: T5, vocabulary: Vocabulary) -> Generator:
        """A generator around the very tensors of a loaded model: it costs no further memory."""
        return cls(to_huggingface(model), vocabulary)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 256,
        beams: int = 1,
        batch_size: int = 16,
        max_inputs: int = 1024,
        advance: Callable[[float], object] = lambda amount: None,
        say: Callable[[str], object] = lambda line: None,
    ) -> list[str]:
        """The model's answer to each prompt, in the order given.

        Args:
            prompts: input texts.
            max_new_tokens: longest answer.
            beams: 1 is greedy decoding.
            batch_size: prompts that are answered at once.
            max_inputs: longer prompts are cut at the end.
            advance: told how many prompts were answered.
            say: takes a sentence if prompts were cut.

        Raises:
            UserError: a prompt without any token or with characters that are none, or one for which the model gives
                NaN.
        """
        import torch
        from transformers import LogitsProcessorList

        _refuse_no_text(prompts)
        whole = self.vocabulary.encode_many(prompts)
        if long := [i for i, tokens in enumerate(whole) if len(tokens) > max_inputs]:
            say(
                f"note: {len(long):,} of {len(whole):,} prompts are longer than {max_inputs:,} tokens and were cut at "
                f"the end; the first is prompt {long[0] + 1}, of {len(whole[long[0]]):,} tokens"
            )
        ids = [tokens[:max_inputs] for tokens in whole]
        if empty := [i for i, tokens in enumerate(ids) if not len(tokens)]:
            raise UserError(f"prompt {empty[0] + 1} of {len(ids)} is empty; give the model something to read.")
        answers = [""] * len(ids)
        longest_first = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(ids), batch_size):
            some = longest_first[start : start + batch_size]
            padded, mask = _pad([ids[i] for i in some], self.vocabulary)
            guard = _NanGuard([f"prompt {i + 1} of {len(ids)} ({prompts[i][:60]!r})" for i in some], beams)
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=torch.from_numpy(padded).to(self._model.device),
                    attention_mask=torch.from_numpy(mask).to(self._model.device),
                    max_new_tokens=max_new_tokens,
                    num_beams=beams,
                    do_sample=False,
                    logits_processor=LogitsProcessorList([guard]),
                )
            for i, tokens in zip(some, output.cpu().numpy(), strict=True):
                answers[i] = self.vocabulary.decode(tokens)
            advance(len(some))
        return answers


def _refuse_no_text(prompts: Sequence[str]) -> None:
    """Refuse half characters, which is what Python makes of bytes on the command line that are no UTF-8."""
    for number, prompt in enumerate(prompts, 1):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"prompt {number} of {len(prompts)} is no text: character {error.start + 1} is "
                f"{prompt[error.start]!a}; prompts are UTF-8."
            ) from error


class _NanGuard:
    """Stops at NaN, which `generate` would take for padding and pass over in silence. In the shape of a processor."""

    def __init__(self, names: Sequence[str], beams: int) -> None:
        self.names, self.beams = names, beams

    def __call__(self, ids: Any, logits: Any) -> Any:
        """The logits [prompts x beams, vocabulary] unchanged."""
        bad = logits.isnan().any(-1)
        if bad.any():
            raise UserError(
                f"{self.names[int(bad.nonzero()[0]) // self.beams]}: the model gives NaN, so its weights or its "
                "arithmetic are damaged; check the checkpoint, and use bf16 or fp32 (T5 overflows in fp16)."
            )
        return logits


def _pad(ids: Sequence[np.ndarray], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """[prompts, longest] ids and their mask."""
    lengths = np.array([len(tokens) for tokens in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, vocabulary.pad_id, dtype=np.int64)
    padded[mask] = np.concatenate(ids)
    return padded, mask.astype(np.int64)


def _load(folder: Path, device_map: str | None) -> Any:
    """Transformers' model of a folder, in the precision it was saved in."""
    import torch
    from transformers import T5ForConditionalGeneration

    try:
        with quiet_transformers():
            model = T5ForConditionalGeneration.from_pretrained(folder, dtype="auto", device_map=device_map)
    except (ValueError, RuntimeError) as error:
        if device_map is None:
            raise
        raise UserError(f"cannot place the model with --device-map {device_map}: {error}") from error
    if device_map is None:
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is gone after the block, or, if this process is killed, when the next one comes here."""
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent)
    folder = work_folder(parent / "t0train-generate", ".tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
