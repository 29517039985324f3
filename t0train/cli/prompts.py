"""`t0train prompts`: fetch promptsource's templates, list them, show what one makes of records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t0train.cli.arguments import Json
from t0train.core.console import print_json, show_records
from t0train.core.errors import UserError, nearest
from t0train.core.text import printable

if TYPE_CHECKING:
    from t0train.prompts import Template
    from t0train.tasks import Table

app = typer.Typer(help="Install, list and show prompt templates.", no_args_is_help=True)

MOST_RECORDS, CHUNK = 1000, 100  # records read for the wanted examples: some templates drop most
Folders = Annotated[
    list[Path] | None, typer.Option("--templates", help="A folder of templates to search first (repeatable).")
]


@app.command("install")
def install_(
    from_file: Annotated[
        Path | None, typer.Option("--from", help="promptsource's sdist, if there is no network.")
    ] = None,
) -> None:
    """Fetch promptsource 0.2.3's template collection with pip, check it, and unpack it into the cache.

    Example: t0train prompts install
    """
    from t0train.prompts import install, list_datasets, load_templates

    folder = install(from_file)
    keys = list_datasets([folder])
    count = sum(len(load_templates(*key, folders=[folder])) for key in keys)
    print(f"{count:,} templates of {len(keys)} datasets in {folder}")


@app.command("list")
def list_(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET[/CONFIG]]", help="List its templates.")] = None,
    templates: Folders = None,
    as_json: Json = False,
) -> None:
    """List the datasets that have templates, or the templates of one dataset.

    Example: t0train prompts list glue/mrpc
    """
    from t0train.prompts import list_datasets, load_templates

    folders = templates or []
    records: list[dict[str, Any]]
    if dataset is None:
        records = []
        for key in list_datasets(folders):
            found = load_templates(*key, folders=folders).values()
            original = sum(template.original_task for template in found)
            records.append({"dataset": key[0], "subset": key[1], "templates": len(found), "original": original})
        if not records:
            raise UserError("promptsource's templates are not installed. Run: t0train prompts install")
    else:
        records = [
            {
                "name": template.name,
                "original": template.original_task,
                "choices": _kind_of_choices(template),
                "metrics": list(template.metrics),
                "columns": sorted(template.columns),
            }
            for template in load_templates(*_split_key(dataset, folders), folders=folders).values()
        ]
    if as_json:
        print_json(records)
    else:
        show_records(records)


@app.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[/CONFIG]", help="E.g. imdb or glue/mrpc.")],
    template: Annotated[str | None, typer.Option("--template", help="Name of one template; default: all.")] = None,
    n: Annotated[int, typer.Option("--n", min=0, help="Rendered records to show; 0: the templates only.")] = 3,
    data: Annotated[str, typer.Option("--data", help="Where the records are: 'hub', or a folder.")] = "hub",
    split: Annotated[str | None, typer.Option("--split", help="E.g. test[:100]; default: the training split.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the run, for templates with random choices.")] = 0,
    templates: Folders = None,
    as_json: Json = False,
) -> None:
    """Print a template and what it makes of the first records: input, target and answer choices.

    Example: t0train prompts show imdb --template "Movie Expressed Sentiment" --n 2 --data data/ --split "test[:100]"
    """
    from t0train.prompts import load_templates
    from t0train.tasks import Dataset, load_catalogue, open_table

    folders = templates or []
    name, subset = _split_key(dataset, folders)
    found = load_templates(name, subset, folders)
    if template is not None and template not in found:
        raise UserError(f"{dataset} has no template {template!r}: {nearest(template, found)}")
    chosen = [found[template]] if template is not None else list(found.values())
    known = load_catalogue()
    entry = known.get(dataset) or known.get("/".join(filter(None, (name, subset)))) or Dataset(name, subset)
    table = open_table(entry, split or entry.train_split, data) if n else None

    documents = []
    for one in chosen:
        document = _describe(one)
        if table is not None:
            document |= _examples(one, table, n, seed, entry.task_name(one.name))
        documents.append(document)
        if not as_json:
            _print_template(document)
    if as_json:
        print_json(documents)


def _split_key(key: str, folders: list[Path]) -> tuple[str, str]:
    """(dataset, subset) of `glue/mrpc`, `imdb`, `Zaid/coqa_expanded`, or of a catalogue entry with a parent (ANLI)."""
    from t0train.prompts import list_datasets
    from t0train.tasks import load_catalogue

    by_key = {"/".join(filter(None, pair)): pair for pair in list_datasets(folders)}
    if key not in by_key and (entry := load_catalogue().get(key)):
        return entry.origin
    return by_key.get(key, (key, ""))  # an unknown one is refused, with the nearest, when it is loaded


def _kind_of_choices(template: Template) -> str:
    if template.answer_choices is None:
        return "none"
    return "of the record" if template.fixed_choices is None else " / ".join(template.fixed_choices)


def _describe(template: Template) -> dict[str, Any]:
    return {
        "dataset": template.dataset,
        "subset": template.subset,
        "name": template.name,
        "uid": template.uid,
        "original_task": template.original_task,
        "choices_in_prompt": template.choices_in_prompt,
        "metrics": list(template.metrics),
        "columns": sorted(template.columns),
        "answer_choices": template.answer_choices,
        "jinja": template.jinja,
    }


def _examples(template: Template, table: Table, n: int, seed: int, task: str) -> dict[str, Any]:
    """The first `n` records that give an example, what is dubious about them, and how many others were dropped."""
    from collections import Counter

    from t0train.core.hashing import derive_seed
    from t0train.prompts import columns_read

    template.check_columns(table.columns)
    columns = columns_read([template], table.columns) or table.columns[:1]
    examples: list[dict[str, Any]] = []
    notes: Counter[str] = Counter()
    read = 0
    for start in range(0, min(table.num_records, MOST_RECORDS), CHUNK):
        for record, values in enumerate(table.records(start, start + CHUNK, columns), start):
            read = record + 1
            rendered = template.render(values, derive_seed(seed, task, record))  # as `data prepare` draws
            if rendered is None:
                continue
            choices = None if rendered.choices is None else list(rendered.choices)
            examples.append({"record": record, "input": rendered.input, "target": rendered.target, "choices": choices})
            notes.update(rendered.notes)
            if len(examples) == n:
                return {"examples": examples, "notes": dict(notes), "dropped": read - n}
    return {"examples": examples, "notes": dict(notes), "dropped": read - len(examples)}


def _print_template(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from t0train.prompts import describe_notes

    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    key = "/".join(filter(None, (document["dataset"], document["subset"])))
    kind = "original task" if document["original_task"] else "not the original task"
    console.print(Text(printable(f"{key}: {document['name']}"), style="bold"), Text(f"({kind})"))
    console.print(_block("template", document["jinja"]))
    if document["answer_choices"] is not None:
        console.print(_block("choices", document["answer_choices"]))
    for example in document.get("examples", ()):
        console.print(Text(f"\nrecord {example['record']}", style="bold"))
        console.print(_block("input", example["input"]))
        console.print(_block("target", example["target"]))
        if example["choices"] is not None:
            console.print(_block("choices", "\n".join(example["choices"])))
    for line in describe_notes(document.get("notes", {}), len(document.get("examples", ()))):
        console.print(Text(f"\n{line}", style="yellow"))
    if document.get("dropped"):
        console.print(f"\n({document['dropped']} other records were read and gave no example: the template drops them)")
    console.print()


def _block(label: str, text: str) -> Any:
    """Text with its label in a margin, so that no line of a prompt looks like the next thing shown."""
    from rich.text import Text

    lines = printable(text).splitlines() or [""]
    result = Text()
    for number, line in enumerate(lines):
        result.append(f"{label if number == 0 else '':>8} | ", style="dim cyan")
        result.append(line + ("\n" if number < len(lines) - 1 else ""))
    return result
