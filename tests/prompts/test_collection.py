"""Equality with promptsource's own code on every template of its collection."""

from __future__ import annotations

import copy
import functools
import random
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from pyarrow import parquet

from t0train.core.errors import UserError
from t0train.prompts import Template, list_datasets, load_templates
from tests.prompts.plausible_records import plausible_record
from tests.prompts.written_records import WRITTEN_RECORDS

pytestmark = pytest.mark.slow

TEMPLATES = 2085  # in promptsource 0.2.3
RAISES = "raises"


@pytest.fixture(scope="module")
def templates(promptsource_folder: Path) -> list[Template]:
    return [template for key in list_datasets() for template in load_templates(*key).values()]


@pytest.fixture(scope="module")
def originals(promptsource: types.ModuleType) -> dict[str, Any]:
    """promptsource's Template objects by identifier, read by its own YAML code."""
    collection = promptsource.TemplateCollection()
    return {
        uid: original for sets in collection.datasets_templates.values() for uid, original in sets.templates.items()
    }


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every random choice, promptsource's and ours, depend on the options alone.

    promptsource draws from a constant list while it compiles, we draw while we render, so streams cannot be compared.
    """

    def pick(options: Any) -> Any:
        return options[zlib.crc32(repr(options).encode()) % len(options)]

    monkeypatch.setattr(random, "choice", pick)
    monkeypatch.setattr(random.Random, "choice", lambda self, options: pick(options))


def attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception:
        return RAISES


def difference(template: Template, original: Any, record: dict[str, Any]) -> str | None:
    """How ours differs from promptsource's on this record, or None. Where promptsource raises, ours has to."""

    def clean() -> dict[str, Any]:  # a template may change a list that it is given
        return {name.replace("-", "_"): copy.deepcopy(value) for name, value in record.items()}

    for truncate in (True, False):
        theirs = attempt(lambda: original.apply(clean(), truncate=truncate))  # noqa: B023 (called at once)
        ours = attempt(lambda: template.render_parts(record, truncate=truncate))  # noqa: B023
        if ours != theirs:
            return f"{template}, truncate={truncate}: {ours} instead of {theirs}"
    if RAISES in (theirs, ours):
        return None
    choices = original.get_answer_choices_list(clean())
    rendered = template.render(record)
    if rendered is None:
        kept = len(theirs) == 2 and theirs[0] != ""
        return f"{template}: dropped, promptsource gives {theirs}" if kept else None
    if rendered.choices != (None if choices is None else tuple(choices)):
        return f"{template}: choices {rendered.choices} instead of {choices}"
    return None


def printed(template: Template, record: dict[str, Any]) -> bool:
    try:
        parts = template.render_parts(record)
    except UserError:
        return False
    return len(parts) == 2 and all(parts)


def generated_records(template: Template, wanted: int = 2, most: int = 40) -> Iterator[dict[str, Any]]:
    """The first record that was guessed, whatever comes of it, then up to `wanted` that print an input and a target."""
    found = 0
    for attempt_number in range(most):
        generator = random.Random(f"{template.uid}/{attempt_number}")
        record = plausible_record(template.jinja, template.answer_choices, template.columns, generator)
        prints = printed(template, record)
        if prints or attempt_number == 0:
            yield record
        found += prints
        if found == wanted:
            return


def written_records(template: Template) -> list[dict[str, Any]]:
    records = WRITTEN_RECORDS.get((template.dataset, template.subset), [])
    return [record for record in records if template.columns <= {name.replace("-", "_") for name in record}]


def test_the_collection_is_read_as_promptsource_reads_it(templates: list[Template], originals: dict[str, Any]) -> None:
    assert len(templates) == len(originals) == TEMPLATES
    for template in templates:
        original = originals[template.uid]
        assert (template.name, template.jinja, template.answer_choices) == (
            original.name,
            original.jinja,
            original.answer_choices,
        )
        assert template.original_task == bool(original.metadata.original_task)
        assert template.choices_in_prompt == original.metadata.choices_in_prompt
        assert list(template.metrics) == original.metadata.metrics


def test_fixed_choices_are_promptsources(templates: list[Template], originals: dict[str, Any]) -> None:
    fixed = 0
    for template in templates:
        theirs = originals[template.uid].get_fixed_answer_choices_list()
        assert template.fixed_choices == (None if theirs is None else tuple(theirs)), template
        fixed += theirs is not None
    assert fixed > 800


@pytest.mark.usefixtures("same_draws")
def test_every_template_renders_as_promptsource_renders_it(
    templates: list[Template], originals: dict[str, Any]
) -> None:
    compared, with_output, differences = 0, 0, []
    for template in templates:
        records = [*written_records(template), *generated_records(template)]
        differences += [found for record in records if (found := difference(template, originals[template.uid], record))]
        compared += 1
        with_output += any(printed(template, record) for record in records)
    assert differences == []
    assert compared == TEMPLATES
    assert with_output == TEMPLATES  # an input and a target, not only an empty string each


@pytest.mark.usefixtures("same_draws")
def test_templates_render_real_records_as_promptsource_does(
    templates: list[Template], originals: dict[str, Any], real_data: Path
) -> None:
    compared, with_output, differences = 0, 0, []
    for template in templates:
        records = real_records(real_data / template.dataset / (template.subset or "default"))
        if not records:
            continue
        printing = [record for record in records if printed(template, record)]
        chosen = [records[0], records[-1], *sorted(printing, key=lambda record: -len(str(record)))[:2]]
        differences += [found for record in chosen if (found := difference(template, originals[template.uid], record))]
        compared += 1
        with_output += bool(printing)
    assert differences == []
    assert compared > 300
    assert (
        with_output >= 0.9 * compared
    )  # the others want records that the file does not have: of one class, unlabelled


@functools.cache
def real_records(folder: Path, most: int = 100) -> list[dict[str, Any]]:
    """Records of the largest split, spread over it."""
    files = sorted(folder.glob("*.parquet"), key=lambda path: parquet.read_metadata(path).num_rows)
    if not files:
        return []
    table = parquet.read_table(files[-1])
    taken = table.take(list(range(0, table.num_rows, max(1, table.num_rows // most))))
    records: list[dict[str, Any]] = taken.to_pylist()
    return records


def test_real_columns_pass_the_check(templates: list[Template], real_data: Path) -> None:
    checked = 0
    for template in templates:
        if records := real_records(real_data / template.dataset / (template.subset or "default")):
            template.check_columns(records[0])
            checked += 1
    assert checked > 300


def test_a_seed_draws_what_promptsource_draws_after_random_seed(
    templates: list[Template], originals: dict[str, Any]
) -> None:
    """Without stand-ins for the draws; constant lists are left out, promptsource draws from those while compiling."""
    compared, varied = 0, 0
    for template in templates:
        if not draws_from_the_record(template.jinja):
            continue
        for record in list(generated_records(template))[1:]:
            outputs = []
            for seed in range(5):
                random.seed(seed)
                outputs.append(attempt(lambda: originals[template.uid].apply(copy.deepcopy(record))))  # noqa: B023
                assert attempt(lambda: template.render_parts(record, seed)) == outputs[-1], template  # noqa: B023
            compared += 1
            varied += any(output != outputs[0] for output in outputs)
    assert compared > 100
    assert varied > 0.5 * compared


def draws_from_the_record(source: str) -> bool:
    environment = jinja2.Environment()
    environment.filters.update(dict.fromkeys(("choice", "most_frequent", "highlight"), str))
    drawn = [
        node.node for node in environment.parse(source).find_all(nodes.Filter) if node.name in ("choice", "random")
    ]
    return bool(drawn) and all(one is not None and any(True for _ in one.find_all(nodes.Name)) for one in drawn)
