"""The datasets of a suite, ready to be scored: their prompts, to rank choices of or to generate from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from t0train.config import SuiteTask
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash, derive_seed
from t0train.data import TaskTokens, Vocabulary, open_folder, prepare_tasks, store_folder
from t0train.data.store import StoreKey
from t0train.evals.bigbench import big_bench_prompts
from t0train.evals.eval_config import LEFT_OUT, EvalConfig, SuiteEntry, resolve_suite, split_missing, task_files
from t0train.prompts import NO_LABEL, Note, Rendered, columns_read
from t0train.results.results_json import DatasetFacts, Missing, PromptFacts
from t0train.results.statistics import mean_baselines, over_prompts
from t0train.tasks import Table, Task, Watch, list_missing, open_table, parse_split
from t0train.tasks.formats import content_identity, file_states

_NO_RECORD = "no prompt applies to any record that was drawn"
_NO_SCORES = 'no example that was drawn has "target_scores", so there are no choices to rank'

Tokens: TypeAlias = NDArray[np.uint16]
Item: TypeAlias = tuple[Tokens, Sequence[Tokens]]  # input without EOS, choices with EOS


class EvalPrompt(Protocol):
    """A prompt of a dataset, with the records that it is scored on.

    Attributes:
        name: of the prompt, unique in its dataset.
        task: of dataset and prompt together.
        identity: hash of all that decides its items and their scores, whichever of them are drawn.
        records: [items] the number of each item's record.
    """

    name: str
    task: str
    identity: str
    records: NDArray[np.int64]

    @property
    def remarks(self) -> dict[str, int]:
        """What is odd about its items, with their number."""
        ...


class RankPrompt(EvalPrompt, Protocol):
    """A prompt with choices. `classes` is how many choices every item has, if they are the same for all; else None."""

    classes: int | None

    def item(self, i: int) -> Item:
        """Input ids, and the ids of each choice."""
        ...

    def gold(self, i: int) -> int:
        """Index of the gold choice, -1 if the gold target is no choice."""
        ...

    def grades(self, i: int) -> NDArray[np.float64]:
        """How right each choice is, 0 to 1."""
        ...


@dataclass
class GenerationPrompt:
    """A prompt to generate from. Attributes as `EvalPrompt` and the following.

    Attributes:
        inputs: [items] what the model reads.
        references: [items] the right answers, the template's target first.
        max_new_tokens: longest answer.
    """

    name: str
    task: str
    identity: str
    records: NDArray[np.int64]
    remarks: dict[str, int]
    inputs: list[str]
    references: list[list[str]]
    max_new_tokens: int


P = TypeVar("P", bound=EvalPrompt, covariant=True)


@dataclass(frozen=True)
class EvalDataset(Generic[P]):
    """One dataset of the suite, ready to be scored.

    Attributes:
        entry: of the suite.
        revision: identity of its records.
        prompts: all that the suite names, those that apply to no record included.
    """

    entry: SuiteEntry
    revision: str
    prompts: Sequence[P]

    @property
    def items(self) -> list[int]:
        """Number of items of each prompt."""
        return [len(prompt.records) for prompt in self.prompts]

    @property
    def applicable(self) -> list[P]:
        """The prompts that apply to at least one of the records."""
        return [prompt for prompt in self.prompts if len(prompt.records)]

    def facts(self, scores: Sequence[PromptFacts]) -> DatasetFacts:
        """The facts that results hold of a dataset of either kind; `scores` are those of its prompts."""
        unused = {prompt.name: "applies to no record" for prompt in self.prompts if not len(prompt.records)}
        return DatasetFacts(
            dataset=self.entry.dataset.key,
            split=self.entry.split,
            family=self.entry.dataset.family,
            revision=self.revision,
            metrics=over_prompts([score.metrics for score in scores]),
            metric_baselines=mean_baselines([score.metric_baselines for score in scores]),
            left_out={**self.entry.left_out, **unused},
            caveat=self.entry.spec.caveat,
        )

    def item_columns(self, prompt: EvalPrompt) -> dict[str, Sequence[str] | NDArray[np.int64]]:
        """The columns that name the items of a prompt in a table of results."""
        entry = self.entry
        names = {"dataset": entry.dataset.key, "split": entry.split, "task": prompt.task, "prompt": prompt.name}
        return {**{column: [name] * len(prompt.records) for column, name in names.items()}, "record": prompt.records}


class RankDataset(EvalDataset[RankPrompt]):
    """A dataset to rank choices of."""


class GenerationDataset(EvalDataset[GenerationPrompt]):
    """A dataset to generate answers to."""


def open_datasets(
    config: EvalConfig, vocabulary: Vocabulary
) -> tuple[list[RankDataset | GenerationDataset], list[Missing]]:
    """Render and tokenise the datasets of a suite, and list those that cannot be scored.

    Args:
        config: what is evaluated.
        vocabulary: of the model.

    Raises:
        UserError: unknown dataset or template, no dataset that is available, no prompt applies to any record, a prompt
            under which no answer can be right.
    """
    entries, missing = split_missing(resolve_suite(config), config.source)
    opened = [_open(entry, config, vocabulary) for entry in entries]
    empty = [
        Missing(
            dataset=dataset.entry.dataset.key,
            split=dataset.entry.split,
            reason=_NO_SCORES if dataset.entry.spec.kind == "bigbench" else _NO_RECORD,
        )
        for dataset in opened
        if not any(dataset.items)
    ]
    datasets = [dataset for dataset in opened if any(dataset.items)]
    if not config.suite.allow_empty_targets:
        for dataset in datasets:
            _refuse_empty_targets(dataset, config.suite.name)
    if not datasets and entries:
        lines = list_missing([(table.dataset, table.split, table.reason) for table in empty])
        raise UserError(f"suite {config.suite.name}: nothing to score:\n{lines}")
    return datasets, [*missing, *empty]


def _open(entry: SuiteEntry, config: EvalConfig, vocabulary: Vocabulary) -> RankDataset | GenerationDataset:
    if entry.spec.kind == "bigbench":
        folder = Path(config.source, entry.dataset.key)
        opened = file_states(task_files(folder))
        watch = Watch(str(folder), parse_split(entry.split), lambda: file_states(task_files(folder)) == opened)
        prompts = big_bench_prompts(entry, config, vocabulary)
        revision = content_identity(task_files(folder))
        watch.check()
        return RankDataset(entry, revision, prompts)
    table = open_table(entry.dataset, entry.split, config.source)
    if entry.spec.kind == "generate":
        return GenerationDataset(entry, table.revision, generation_prompts(entry, table, config, vocabulary))
    return RankDataset(entry, table.revision, rank_prompts(entry, table, config, vocabulary))


def _refuse_empty_targets(dataset: RankDataset | GenerationDataset, suite: str) -> None:
    """Refuse prompts whose right answers are empty in all drawn records: labels that index no choice, nulls.

    Texts that are no choice are accepted, with a remark: some published prompts have such targets.
    """
    for prompt in dataset.applicable:
        number, remarks = len(prompt.records), prompt.remarks
        if remarks.get(_EMPTY_TARGET) == number:
            why = "; ".join(f"{remark}: {count:,}" for remark, count in remarks.items() if remark != _EMPTY_TARGET)
            raise UserError(
                f"suite {suite}, {dataset.entry.dataset.key} {dataset.entry.split}, prompt {prompt.name!r}: none of "
                f"the {number:,} right answers says anything ({why}), so no answer can be right. Correct the records "
                "or the template (labels are whole numbers, counted from 0), leave the prompt out of the suite "
                "(`prompts`), or set allow_empty_targets in it to go on."
            )


_EMPTY_TARGET = "the right answer says nothing"  # <NO LABEL>, blank, a null, or without the choice it should name

_REMARKS = {
    Note.NO_LABEL: f"the target is {NO_LABEL}",
    Note.NO_CHOICE: "the label selects no choice",
    Note.LAST_CHOICE: "the label is negative: it counts from the last choice",
    Note.NOT_A_CHOICE: "the target is not among the choices",
    Note.BLANK_TARGET: "the target shows nothing",
    Note.NULL_TARGET: 'the target is "None", made of a null',
    Note.NULL: 'a null is printed as "None"',
    Note.UNDEFINED: "a field that does not exist is printed",
}

_EMPTY = {Note.NO_LABEL, Note.NO_CHOICE, Note.BLANK_TARGET, Note.NULL_TARGET}
_CHUNK = 1024  # records read at once


def generation_prompts(
    entry: SuiteEntry, table: Table, config: EvalConfig, vocabulary: Vocabulary
) -> list[GenerationPrompt]:
    """Render the records of a table that are drawn under every prompt.

    Raises:
        UserError: a column missing that a template or `references` names.
    """
    for task in entry.tasks:
        task.template.check_columns(table.columns)
    records = _drawn_records(entry, table, config.draw_records(entry, table.num_records))
    spec = entry.spec
    judged = [spec.references, spec.max_new_tokens, spec.metrics[0]]
    prompts = []
    for task in entry.tasks:
        key = StoreKey.of(task, table.split, table, vocabulary, config.seed)  # not stored, but identified alike
        prompts.append(_render(task, content_hash([key.parts, *judged]), records, spec, config.seed))
    return prompts


def _drawn_records(entry: SuiteEntry, table: Table, drawn: NDArray[np.bool_]) -> dict[int, dict[str, Any]]:
    """The drawn records by number, with the columns that are needed."""
    answers = entry.spec.references.partition(".")[0]
    if answers and answers not in table.columns:
        raise UserError(f"references: {entry.dataset.key} has no column {answers!r}; {nearest(answers, table.columns)}")
    read = set(columns_read((task.template for task in entry.tasks), table.columns))
    columns = [name for name in table.columns if name in read or name == answers]
    records = {}
    for start in range(0, len(drawn), _CHUNK):
        wanted = np.flatnonzero(drawn[start : start + _CHUNK])
        if len(wanted):
            chunk = table.records(start, start + _CHUNK, columns or table.columns[:1])
            records.update({start + i: chunk[i] for i in wanted.tolist()})
    return records


def _render_records(task: Task, records: Mapping[int, dict[str, Any]], seed: int) -> Iterator[tuple[int, Rendered]]:
    """The examples that the template does not drop, drawing as in the token store where it draws at random."""
    for number, record in records.items():
        example = task.template.render(record, derive_seed(seed, task.name, number) if task.template.is_random else 0)
        if example is not None:
            yield number, example


def _describe_example(example: Rendered, has_other_answers: bool = False) -> Iterator[str]:
    """The remarks on an example: its notes, and whether its right answers are empty."""
    if not has_other_answers and not _EMPTY.isdisjoint(example.notes):
        yield _EMPTY_TARGET
    yield from (_REMARKS[note] for note in sorted(example.notes))


def _render(
    task: Task, identity: str, records: dict[int, dict[str, Any]], spec: SuiteTask, seed: int
) -> GenerationPrompt:
    kept: list[int] = []
    notes: Counter[str] = Counter()
    inputs: list[str] = []
    references: list[list[str]] = []
    for number, example in _render_records(task, records, seed):
        kept.append(number)
        inputs.append(example.input)
        references.append(list(dict.fromkeys([example.target, *_answers(records[number], spec.references)])))
        notes.update(_describe_example(example, has_other_answers=len(references[-1]) > 1))
    notes[LEFT_OUT] = len(records) - len(kept)
    return GenerationPrompt(
        name=task.template.name,
        task=task.name,
        identity=identity,
        records=np.array(kept, dtype=np.int64),
        remarks={remark: number for remark, number in notes.items() if number},
        inputs=inputs,
        references=references,
        max_new_tokens=spec.max_new_tokens,
    )


def _answers(record: dict[str, Any], path: str) -> list[str]:
    """All right answers that a record names: a text or a list of texts."""
    if not path:
        return []
    value: Any = record
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise UserError(f"references: {path!r} leads to nothing; found {value!r:.80} where {key!r} was looked up.")
        value = value[key]
    return [str(answer) for answer in (value if isinstance(value, list) else [value])]


class TokenizedPrompt:
    """A template's examples in the token store. Attributes as `RankPrompt`."""

    def __init__(
        self, task: Task, tokens: TaskTokens, drawn: NDArray[np.bool_], notes: Callable[[], Mapping[str, int]]
    ) -> None:
        """`notes` counts what is dubious about the records that are drawn; called only if the remarks are read."""
        self.name, self.task = task.template.name, task.name
        self.identity = content_hash(tokens.manifest["key_parts"])
        self.classes = len(task.template.fixed_choices) if task.template.fixed_choices else None
        records = np.array([tokens.source_row(item) for item in range(len(tokens))], dtype=np.int64)
        self._items = np.flatnonzero(drawn[records])
        self.records = records[self._items]
        self._tokens, self._notes = tokens, notes
        self._left_out = int(drawn.sum()) - len(self.records)

    @cached_property
    def remarks(self) -> dict[str, int]:
        """What is odd about its items, with their number."""
        found = {LEFT_OUT: self._left_out, **self._notes()}
        return {remark: number for remark, number in found.items() if number}

    def item(self, i: int) -> Item:
        """Input ids, and the ids of each choice."""
        item = int(self._items[i])
        choices = self._tokens.choices(item)
        assert choices is not None, "a ranked task has answer choices"
        return self._tokens.inputs(item), choices

    def gold(self, i: int) -> int:
        """Index of the gold choice, -1 if the gold target is no choice."""
        return self._tokens.label(int(self._items[i]))

    def grades(self, i: int) -> NDArray[np.float64]:
        """1 for the choices that equal the target, of which the gold one is the first; 0 for the others.

        The original compares bytes. Choices that the vocabulary cannot tell apart tie, the first of them is predicted,
        and one that comes before the gold choice differs from the target in its bytes: it is wrong.
        """
        choices, gold = self.item(i)[1], self.gold(i)
        same = [gold >= 0 and k >= gold and np.array_equal(choice, choices[gold]) for k, choice in enumerate(choices)]
        return np.array(same, dtype=np.float64)


def rank_prompts(entry: SuiteEntry, table: Table, config: EvalConfig, vocabulary: Vocabulary) -> list[TokenizedPrompt]:
    """Render and tokenise what is not in the store yet, and draw the records of the table to score."""
    prepared = prepare_tasks(
        entry.tasks,
        lambda _: entry.split,
        config.source,
        vocabulary,
        store_folder(config.store),
        workers=os.cpu_count() or 1,
        seed=config.seed,
    )
    table.watch.check()  # what was prepared are the records of this table
    drawn = config.draw_records(entry, table.num_records)
    read = cache(partial(_drawn_records, entry, table, drawn))  # once for all prompts, if it is needed
    return [
        TokenizedPrompt(
            task,
            open_folder(made.folder, verify=False),  # prepare_tasks has compared its checksum
            drawn,
            partial(_count_notes, task, read, config.seed),
        )
        for task, made in zip(entry.tasks, prepared, strict=True)
    ]


def _count_notes(task: Task, read: Callable[[], dict[int, dict[str, Any]]], seed: int) -> Mapping[str, int]:
    """What is dubious about the examples of the drawn records; that no choice is right is counted elsewhere."""
    notes: Counter[str] = Counter()
    for _, example in _render_records(task, read(), seed):
        notes.update(_describe_example(example))
    notes.pop(_REMARKS[Note.NOT_A_CHOICE], None)
    return notes
