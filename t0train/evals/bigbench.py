"""BIG-bench's JSON tasks (Srivastava et al. 2022), ranked like everything else.

The grade of an answer (`multiple_choice_grade`) is the target score of the choice that the model finds likeliest. A
task that consists of sub-tasks has one prompt for each of them: its score is the mean over sub-tasks, each counting the
same. The text is zero-shot: task prefix, then input prefix, input, the choices in an order drawn by the seed (unless
the task says that it shows none), output prefix. Where neither side of a seam has white space there is a new line:
words are never glued together. Choices are ranked in the drawn order: files tend to name the right one first, and the
first wins a tie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.core.hashing import content_hash, generator
from t0train.core.text import read_json
from t0train.data import Vocabulary
from t0train.evals.eval_config import EvalConfig, SuiteEntry, task_files

_PREFIXES = {
    "task_prefix": "",
    "example_input_prefix": "\nQ: ",
    "choice_prefix": "\n  choice: ",
    "example_output_prefix": "\nA: ",
}
_SHOWS_CHOICES = "append_choices_to_input"


@dataclass(frozen=True)
class Example:
    """One example; `record` counts through all of a task's sub-tasks. Choices and grades are in the drawn order."""

    record: int
    text: str
    choices: tuple[str, ...]
    grades: NDArray[np.float64]


@dataclass(frozen=True)
class SubTask:
    """One task.json. `examples` leaves out those without target scores; `size` counts them."""

    name: str
    examples: tuple[Example, ...]
    size: int

    def identity(self, vocabulary: Vocabulary) -> str:
        """Hash of all texts, choices and grades, and of the vocabulary that cuts them."""
        texts = [[example.record, example.text, example.choices, example.grades.tolist()] for example in self.examples]
        return content_hash([texts, vocabulary.fingerprint])


class BigBenchPrompt:
    """A sub-task's drawn examples. Attributes as `RankPrompt`."""

    def __init__(self, task: str, part: SubTask, vocabulary: Vocabulary, drawn: NDArray[np.bool_]) -> None:
        examples = [example for example in part.examples if drawn[example.record]]
        unscored = part.size - len(part.examples)
        self.name, self.task = part.name, f"bigbench_{task}" if part.name == task else f"bigbench_{task}_{part.name}"
        self.identity = part.identity(vocabulary)
        self.classes: int | None = None
        self.remarks = {"examples without target scores, skipped": unscored} if unscored else {}
        self.records = np.array([example.record for example in examples], dtype=np.int64)
        self._grades = [example.grades for example in examples]
        self._inputs = vocabulary.encode_many([example.text for example in examples])
        choices = vocabulary.encode_many([choice for example in examples for choice in example.choices])
        closed = iter([np.append(ids, np.uint16(vocabulary.eos_id)) for ids in choices])
        self._choices = [[next(closed) for _ in example.choices] for example in examples]

    def item(self, i: int) -> tuple[NDArray[np.uint16], list[NDArray[np.uint16]]]:
        """Input ids, and the ids of each choice."""
        return self._inputs[i], self._choices[i]

    def gold(self, i: int) -> int:
        """Index of the choice with the highest target score, -1 if all are 0."""
        return int(self._grades[i].argmax()) if self._grades[i].any() else -1

    def grades(self, i: int) -> NDArray[np.float64]:
        """The target scores."""
        return self._grades[i]


def big_bench_prompts(entry: SuiteEntry, config: EvalConfig, vocabulary: Vocabulary) -> list[BigBenchPrompt]:
    """The sub-tasks of a task (itself, if it has none). Raises `UserError` if a file of it is malformed."""
    name = entry.dataset.subset
    parts = read_task(Path(config.source, entry.dataset.key), name, config.seed)
    drawn = config.draw_records(entry, sum(part.size for part in parts))
    return [BigBenchPrompt(name, part, vocabulary, drawn) for part in parts]


def read_task(folder: Path, name: str, seed: int = 0) -> list[SubTask]:
    """All sub-tasks of a task.

    Args:
        folder: holds `task.json`, or a folder with one for each sub-task.
        name: of the task.
        seed: of the order in which the choices are shown.

    Raises:
        UserError: a file that is not a task of BIG-bench; the message names file and example.
    """
    parts: list[SubTask] = []
    for path in task_files(folder):
        start = sum(part.size for part in parts)
        part_name = name if path.parent == folder else path.parent.name
        parts.append(_read(path, part_name, start, seed))
    return parts


def _read(path: Path, name: str, start: int, seed: int) -> SubTask:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("examples"), list) or not content["examples"]:
        raise UserError(f'{path} is no task of BIG-bench: a list "examples" with at least one example is expected.')
    _check_fields(content, path)
    examples = tuple(
        _example(content, example, start + i, f"{path}, example {i + 1}", seed)
        for i, example in enumerate(content["examples"])
        if not (isinstance(example, dict) and "input" in example and "target_scores" not in example)
    )
    if examples and not any(example.grades.any() for example in examples):
        raise UserError(f"{path}: no choice of any example has a target score above 0, so no answer can be right.")
    return SubTask(name, examples, len(content["examples"]))


def _check_fields(task: dict[str, Any], path: Path) -> None:
    for key in ("name", *_PREFIXES):
        if not isinstance(task.get(key, ""), str):
            raise UserError(
                f'{path}: "{key}" is {json.dumps(task[key])[:200]}, expected a text; leave it out for the default.'
            )
    if not isinstance(shown := task.get(_SHOWS_CHOICES, True), bool):
        raise UserError(f'{path}: "{_SHOWS_CHOICES}" is {json.dumps(shown)[:200]}, expected true or false.')


def _example(task: dict[str, Any], example: Any, record: int, where: str, seed: int) -> Example:
    text, scores = (example.get("input"), example.get("target_scores")) if isinstance(example, dict) else (None, None)
    if not isinstance(text, str) or not isinstance(scores, dict) or not scores:
        raise UserError(f'{where}: a text "input" and "target_scores" with a number for each choice are expected.')
    for choice, score in scores.items():
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise UserError(
                f"{where}: the target score of {choice[:200]!r} is {json.dumps(score)[:200]}, expected a number from 0"
                " to 1: the mean of these is the accuracy."
            )
    order = generator(seed, "bigbench", task.get("name", ""), record).permutation(len(scores))
    choices = tuple(sorted(scores)[k] for k in order)
    prefixes = {key: task.get(key, default) for key, default in _PREFIXES.items()}
    shown = [prefixes["choice_prefix"] + choice for choice in choices] if task.get(_SHOWS_CHOICES, True) else []
    parts = (
        prefixes["task_prefix"],
        prefixes["example_input_prefix"] + text,
        *shown,
        prefixes["example_output_prefix"],
    )
    return Example(record, _joined(parts), choices, np.array([float(scores[choice]) for choice in choices]))


def _joined(parts: tuple[str, ...]) -> str:
    text = ""
    for part in parts:
        seam = "\n" if text and part and not text[-1].isspace() and not part[0].isspace() else ""
        text += seam + part
    return text.strip()
