"""Benchmarks on a CPU: t0train against what people use instead, in one process.

    python scripts/bench.py pack
    python scripts/bench.py render --source DATA --dataset imdb --dataset super_glue/rte
    python scripts/bench.py prepare CONFIG
    python scripts/bench.py step --size tiny
    python scripts/bench.py rank --size mini --targets 3 --at-least 2.5

Times are CPU seconds of this process, one thread, arms taking turns, medians over rounds: read the ratios. Figures that
were measured stand in docs/benchmarks.md.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import sys
import tarfile
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False)
Rounds = Annotated[int, typer.Option(help="times that each arm runs")]


def race(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each arm; they take turns, so that a busy machine slows all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            started = time.process_time()
            arm()
            seconds[name].append(time.process_time() - started)
    return {name: median(values) for name, values in seconds.items()}


def show(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title)
    for line in lines:
        table.add_row(*line)
    Console(width=120).print(table)


def random_lengths(examples: int, inputs_bind: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of inputs and targets like T0's mixture; with `inputs_bind` targets are short, as in classification."""
    generator = np.random.default_rng(0)
    inputs = generator.lognormal(5.3, 0.9, examples).astype(int).clip(8, 1024)
    targets = generator.lognormal(1.5 if inputs_bind else 3.6, 1.0, examples).astype(int).clip(2, 256)
    return inputs, targets


@app.command()
def pack(
    examples: Annotated[int, typer.Option(help="examples to pack, in windows of 1,024")] = 65_536, rounds: Rounds = 3
) -> None:
    """Fill of packed rows and examples per second, by method."""
    from t0train.data.packing import METHODS

    lines = []
    for kind, inputs_bind in (("inputs bind", True), ("both bind", False)):
        inputs, targets = random_lengths(examples, inputs_bind)
        seconds = race({method: partial(count_rows, inputs, targets, method) for method in METHODS}, rounds)
        for method in METHODS:
            rows = count_rows(inputs, targets, method)
            fills = (inputs.sum() / (1024 * rows), targets.sum() / (256 * rows))
            shares = (f"{100 * fill:.1f} %" for fill in fills)
            lines.append((kind, method, f"{rows:,}", *shares, f"{examples / seconds[method]:,.0f}"))
    show(f"{examples:,} random lengths", ("lengths", "method", "rows", "inputs filled", "targets", "examples/s"), lines)


def count_rows(inputs: np.ndarray, targets: np.ndarray, method: str) -> int:
    """Rows that examples take, packed in windows as training packs them."""
    from t0train.data.packing import WINDOW
    from t0train.data.packing import pack as pack_window

    windows = [slice(start, start + WINDOW) for start in range(0, len(inputs), WINDOW)]
    return sum(len(pack_window(inputs[window], targets[window], method=method)) for window in windows)


@app.command()
def render(
    source: Annotated[Path, typer.Option(help="folder with <dataset>/<config or default>/<split>.parquet")],
    dataset: Annotated[list[str], typer.Option(help="name or name/subset")],
    templates: Annotated[int, typer.Option(help="templates of each dataset")] = 3,
    rows: Annotated[int, typer.Option(help="rows that are rendered")] = 200,
    rounds: Rounds = 3,
) -> None:
    """Rendering against promptsource's own `Template.apply` (its source archive must be in the cache)."""
    from t0train.prompts import load_templates
    from t0train.tasks import load_catalogue, open_table

    theirs = import_promptsource()
    lines, ratios = [], []
    for key in dataset:
        found = load_catalogue()[key]
        content = open_table(found, found.train_split, str(source)).records(0, rows)
        collection = theirs.DatasetTemplates(found.name, found.subset or None)
        for name, template in list(load_templates(found.name, found.subset).items())[:templates]:
            template.render(content[0])  # compiles
            arms = {"promptsource": collection[name].apply, "t0train": template.render}
            seconds = race({arm: partial(apply_all, apply, content) for arm, apply in arms.items()}, rounds)
            ratios.append(seconds["promptsource"] / seconds["t0train"])
            rates = (f"{rows / value:,.0f}" for value in seconds.values())
            lines.append((key, name[:50], *rates, f"{ratios[-1]:.0f} x"))
    title = f"examples per second; {min(ratios):.0f} to {max(ratios):.0f} times, median {median(ratios):.0f}"
    show(title, ("dataset", "template", "promptsource", "t0train", "ratio"), lines)


def apply_all(apply: Callable[[Any], object], rows: Sequence[Any]) -> None:
    for row in rows:
        apply(row)


def import_promptsource() -> types.ModuleType:
    """promptsource's templates.py out of its source archive; what it imports and does not need here is left out."""
    from t0train.prompts.install import SDIST, collection_folder

    archive = collection_folder() / SDIST
    if not archive.is_file():
        print("promptsource's source archive is not in the cache: run `t0train prompts install` first", file=sys.stderr)
        raise typer.Exit(2)
    stand_ins = {"pkg_resources": types.ModuleType("pkg_resources"), "pandas": types.ModuleType("pandas")}
    templates = str(collection_folder() / "templates")
    stand_ins["pkg_resources"].resource_filename = lambda package, name: templates  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as content:
        member = content.extractfile(f"{SDIST.removesuffix('.tar.gz')}/promptsource/templates.py")
        assert member is not None
        file = Path(folder) / "promptsource_templates.py"
        file.write_bytes(member.read())
        spec = importlib.util.spec_from_file_location("promptsource_templates", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.update(stand_ins)
        try:
            spec.loader.exec_module(module)
        finally:
            for name in stand_ins:
                del sys.modules[name]
    return module


@app.command()
def prepare(
    config: Annotated[str, typer.Argument(help="a run configuration whose datasets are available")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value")] = None,
) -> None:
    """Rendering, tokenising and storing of a run's tasks, from nothing, in one process."""
    from t0train.config import load_config
    from t0train.data import open_folder
    from t0train.data import prepare as prepare_store

    with tempfile.TemporaryDirectory() as store:
        settings = load_config(config, [*(overrides or ()), f"data.store={store}"])
        started, cpu = time.perf_counter(), time.process_time()
        prepared = prepare_store(settings, workers=1)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        stored = [open_folder(each.folder, verify=False) for each in prepared]
        examples = sum(task.num_rows for task in stored)
        tokens = sum(int(task.input_lengths.sum() + task.target_lengths.sum()) for task in stored)
    show(
        f"{len(prepared)} tasks, {examples:,} examples of {tokens / examples:.0f} tokens",
        ("examples/s of wall time", "examples/s of this process's CPU time"),
        [(f"{examples / seconds:,.0f}", f"{examples / cpu_seconds:,.0f}")],
    )


@app.command()
def step(
    size: Annotated[str, typer.Option(help="model")] = "tiny",
    rows: Annotated[int, typer.Option(help="packed rows of a step")] = 4,
    max_inputs: Annotated[int, typer.Option(help="positions of a row's input side")] = 512,
    max_targets: Annotated[int, typer.Option(help="of its target side")] = 128,
    examples: Annotated[int, typer.Option(help="examples that transformers takes at once")] = 4,
    rounds: Rounds = 3,
) -> None:
    """Forward and backward pass of packed rows against transformers' T5 on padded batches of the same examples."""
    import torch
    from synthetic import random_row

    from t0train.data import build_rows
    from t0train.model import Batch, init_model, loss, to_huggingface

    torch.set_num_threads(1)
    model = init_model(size, dropout=0.0, attention="segment")
    twin = to_huggingface(model, attn_implementation="eager").train()
    generator = np.random.default_rng(0)
    content = [random_row(generator, max_inputs, max_targets, model.config.vocab_size) for _ in range(rows)]
    packed = build_rows(content, max_inputs, max_targets)
    pairs = [(ids, targets[0]) for row in content for ids, targets in row]

    def ours(attention: Literal["segment", "eager"]) -> None:
        model.attention = attention
        loss(model, Batch.from_rows(packed), denominator=100.0).total.backward()
        model.zero_grad(set_to_none=True)

    def theirs() -> None:
        for start in range(0, len(pairs), examples):
            part = pairs[start : start + examples]
            ids, labels = (padded([pair[side] for pair in part], fill) for side, fill in ((0, 0), (1, -100)))
            twin(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels).loss.backward()
        twin.zero_grad(set_to_none=True)

    def padded(sequences: list[np.ndarray], fill: int) -> torch.Tensor:
        parts = [torch.from_numpy(ids.astype(np.int64)) for ids in sequences]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)

    stock = f"transformers, eager, padded, {examples} at once"
    arms: dict[str, Callable[[], object]] = {
        stock: theirs,
        "t0train, segment, packed": partial(ours, "segment"),
        "t0train, eager, packed": partial(ours, "eager"),
    }
    seconds = race(arms, rounds)
    tokens = sum(len(ids) + len(target) for ids, target in pairs)
    lines = [(name, f"{tokens / value:,.0f}", f"{seconds[stock] / value:.2f} x") for name, value in seconds.items()]
    show(f"{size}: {len(pairs)} examples on {rows} rows", ("arm", "real tokens/s", "ratio"), lines)


@app.command()
def rank(
    size: Annotated[str, typer.Option(help="model")] = "mini",
    inputs: Annotated[int, typer.Option(help="tokens of an input")] = 256,
    choices: Annotated[list[int] | None, typer.Option(help="choices of each example; default 3, 4 and 5")] = None,
    targets: Annotated[
        list[int] | None, typer.Option(help="tokens of each choice, EOS included; default 3 and 20")
    ] = None,
    items: Annotated[int, typer.Option(help="examples")] = 8,
    rounds: Rounds = 3,
    at_least: Annotated[float, typer.Option(help="exit with 1 if any ratio is below this")] = 0.0,
) -> None:
    """Scores of all choices against transformers' T5 with the input repeated for each, four examples at once.

    Both compute the logits of every token of every choice: the longer the choices and the smaller the model, the more
    of the time that is, and the lower the ratio can be at best.
    """
    import torch

    from t0train.model import init_model, to_huggingface

    torch.set_num_threads(1)
    model = init_model(size).eval()
    twin = to_huggingface(model, attn_implementation="eager")
    lines, ratios, worst = [], [], 0.0
    for length in targets or [3, 20]:
        for number in choices or [3, 4, 5]:
            questions = random_questions(items, inputs, number, length, model.config.vocab_size)
            seconds, difference = race_of_rankers(model, twin, questions, rounds)
            ratios.append(seconds["repeated"] / seconds["once"])
            worst = max(worst, difference)
            rates = (f"{items / value:,.1f}" for value in seconds.values())
            lines.append((str(number), str(length), *rates, f"{ratios[-1]:.2f} x"))
    title = f"{size}: examples per second, inputs of {inputs} tokens; scores differ by {worst:.0e} at most"
    columns = ("choices", "tokens of each", "transformers, input repeated", "t0train, input encoded once", "ratio")
    show(title, columns, lines)
    if min(ratios) < at_least:
        print(f"a ratio of {min(ratios):.2f} is below {at_least}", file=sys.stderr)
        raise typer.Exit(1)


Question = tuple[np.ndarray, list[np.ndarray]]


def random_questions(items: int, inputs: int, choices: int, targets: int, vocabulary: int) -> list[Question]:
    """Inputs, and choices that end in EOS."""
    generator = np.random.default_rng(0)

    def ids(length: int) -> np.ndarray:
        return generator.integers(3, vocabulary, length).astype(np.uint16)

    def choice() -> np.ndarray:
        return np.append(ids(targets - 1), 1).astype(np.uint16)

    return [(ids(inputs), [choice() for _ in range(choices)]) for _ in range(items)]


def race_of_rankers(model: Any, twin: Any, questions: list[Question], rounds: int) -> tuple[dict[str, float], float]:
    """CPU seconds of each arm, and the largest difference between their scores."""
    import torch

    from t0train.evals import rank_tokens

    found: dict[str, list[np.ndarray]] = {}

    @torch.inference_mode()
    def repeated() -> None:
        scores: list[np.ndarray] = []
        for start in range(0, len(questions), 4):
            part = questions[start : start + 4]
            repeats = torch.tensor(np.stack([ids for ids, of_it in part for _ in of_it]).astype(np.int64))
            labels = torch.tensor(np.stack([choice for _, of_it in part for choice in of_it]).astype(np.int64))
            shifted = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)
            logits = twin(input_ids=repeats, decoder_input_ids=shifted, use_cache=False).logits.float()
            of_labels = logits.log_softmax(-1).gather(2, labels[..., None])[..., 0].sum(1)
            scores += list(of_labels.view(len(part), -1).numpy())
        found["repeated"] = scores

    def once() -> None:
        found["once"] = list(rank_tokens(model, questions))

    seconds = race({"repeated": repeated, "once": once}, rounds)
    return seconds, float(np.abs(np.stack(found["repeated"]) - np.stack(found["once"])).max())


if __name__ == "__main__":
    app()
