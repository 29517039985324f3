"""Text generation by Hugging Face's `generate`, on prompts tokenised as in training: without EOS on the input."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.core.files import remove_leftovers, work_folder
from t0train.core.hashing import content_hash
from t0train.data import Vocabulary
from t0train.evals.datasets import GenerationDataset, GenerationPrompt
from t0train.evals.models import EvalModel, ModelReference, open_vocabulary, placed
from t0train.evals.prediction_cache import PredictionCache
from t0train.evals.rank import MAX_INPUTS
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
from t0train.results.metrics import constant_answer, corpus_bleu, item_scores
from t0train.results.results_folder import GENERATIONS
from t0train.results.results_json import GeneratedPromptScore, GeneratedScore, MeanScore
from t0train.results.statistics import spread_over_prompts


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
            advance: called with the number of prompts that were answered.
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


@dataclass(frozen=True)
class GenerationScorer:
    """Scores datasets by the answers that a model generates.

    Attributes:
        model: with its vocabulary.
        cache: of the answers.
        seed: of the bootstrap.
        advance: called with the number of items that were answered.
    """

    model: EvalModel
    cache: PredictionCache
    seed: int = 0
    advance: Callable[[float], object] = lambda amount: None

    @cached_property
    def generator(self) -> Generator:
        """The model as a generator of text."""
        return Generator.of(self.model.model, self.model.vocabulary)

    def predict(self, prompt: GenerationPrompt) -> list[str]:
        """What the model generates from each input of a prompt, by greedy decoding."""
        inputs, longest = prompt.inputs, prompt.max_new_tokens
        key = ["greedy", MAX_INPUTS, longest, content_hash([inputs, self.model.vocabulary.fingerprint])]
        generate = partial(self.generator.generate, inputs, longest, max_inputs=MAX_INPUTS, advance=self.advance)
        return self.cache.get(
            prompt.task, key, [lambda text: isinstance(text, str)] * len(inputs), generate, self.advance
        )

    def score(self, dataset: GenerationDataset) -> tuple[GeneratedScore, pa.Table]:
        """Generate answers to all prompts that apply to at least one of the records, and score them."""
        prompts, metrics = dataset.applicable, [str(metric) for metric in dataset.entry.spec.metrics]
        headline = metrics[0]
        outputs = [self.predict(prompt) for prompt in prompts]
        scores = [
            {metric: item_scores(metric, some, prompt.references) for metric in metrics if metric != "bleu"}
            for prompt, some in zip(prompts, outputs, strict=True)
        ]
        means, spread = spread_over_prompts(
            [(prompt.records, values[headline]) for prompt, values in zip(prompts, scores, strict=True)], self.seed
        )
        results = tuple(
            _score_prompt(prompt, some, values, mean, "bleu" in metrics)
            for prompt, some, values, mean in zip(prompts, outputs, scores, means, strict=True)
        )
        tables = [
            pa.table(
                {
                    **dataset.item_columns(prompt),
                    "output": some,
                    "references": prompt.references,
                    "score": values[headline],
                },
                schema=GENERATIONS,
            )
            for prompt, some, values in zip(prompts, outputs, scores, strict=True)
        ]
        result = GeneratedScore(**dict(dataset.facts(results)), **dict(spread), metric=headline, prompts=results)
        return result, pa.concat_tables(tables)


def _score_prompt(
    prompt: GenerationPrompt,
    outputs: Sequence[str],
    scores: Mapping[str, NDArray[np.float64]],
    mean: MeanScore,
    with_bleu: bool,
) -> GeneratedPromptScore:
    """A prompt's metrics, and what they give the answer that is right most often, given everywhere."""
    constant = constant_answer(prompt.references)
    everywhere = [constant] * len(outputs)
    metrics = {metric: float(of_items.mean()) for metric, of_items in scores.items()}
    baselines = {metric: float(item_scores(metric, everywhere, prompt.references).mean()) for metric in metrics}
    if with_bleu:
        metrics["bleu"] = corpus_bleu(outputs, prompt.references)
        baselines["bleu"] = corpus_bleu(everywhere, prompt.references)
    return GeneratedPromptScore(
        **dict(mean),
        name=prompt.name,
        task=prompt.task,
        identity=prompt.identity,
        metrics=metrics,
        constant_answer=constant,
        metric_baselines={metric: {"constant": value} for metric, value in baselines.items()},
        remarks=prompt.remarks,
    )
