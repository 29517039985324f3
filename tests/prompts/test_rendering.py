"""What a rendered example is remarked for. Texts stay what promptsource prints: `test_collection.py` proves that."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from t0train.prompts import Note, Rendered, Template, describe_notes


def render(jinja: str, record: dict[str, Any], answer_choices: str | None = None, truncate: bool = True) -> Rendered:
    rendered = Template("set", "", "a name", "uid", jinja, answer_choices).render(record, truncate=truncate)
    assert rendered is not None
    return rendered


def label(value: Any) -> Rendered:
    return render("x ||| {{answer_choices[label]}}", {"label": value}, "no ||| yes")


@pytest.mark.parametrize("value", ["0", "1", 0.0, 1.0, "yes", None, 2, [0], {}])
def test_a_label_that_indexes_no_choice_is_noted(value: Any) -> None:
    rendered = label(value)
    assert rendered.target == "<NO LABEL>"
    assert rendered.notes == {Note.NO_LABEL, Note.NO_CHOICE}


@pytest.mark.parametrize(("value", "target"), [(-1, "yes"), (-2, "no")])
def test_a_label_that_counts_from_the_end_is_noted(value: int, target: str) -> None:
    rendered = label(value)
    assert rendered.target == target
    assert rendered.notes == {Note.LAST_CHOICE}


@pytest.mark.parametrize(("value", "target"), [(0, "no"), (1, "yes"), (True, "yes")])
def test_a_good_label_is_not_noted(value: Any, target: str) -> None:
    assert label(value) == Rendered("x", target, ("no", "yes"))
    assert label(value).notes == set()


def test_an_index_written_in_the_template_is_its_authors_business() -> None:
    assert render("x ||| {{answer_choices[-1]}}", {}, "no ||| yes").notes == set()
    assert render("x ||| {{answer_choices[n - 1]}}", {"n": 0}, "no ||| yes").notes == {Note.LAST_CHOICE}


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("record.txt", ""),
        ("record['txt']", ""),
        ("nowhere | default(record.txt)", ""),
        ("record.txt ~ '!'", "!"),
        ("record.txt if 1 else 'x'", ""),
        ("items[7]", ""),
        ("record.txt | string", ""),
        ("'x' ~ 'y' if 0 else record.txt", ""),
        ("'x' + (record.txt | string)", "x"),
        ("record.txt | trim", ""),
        ("record.txt | upper | replace('a', 'b') | trim", ""),
        ("[record.txt] | join", ""),
        ("'%s' | format(record.txt)", ""),
    ],
)
def test_a_field_that_does_not_exist_is_noted_where_it_is_printed(expression: str, text: str, truncate: bool) -> None:
    record = {"record": {"text": "t"}, "items": ["i"]}
    rendered = render("a {{ " + expression + " }}. ||| b", record, truncate=truncate)
    assert rendered.input == f"a {text}."
    assert rendered.notes == {Note.UNDEFINED}


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("record.null", "None"),
        ("record.null ~ '!'", "None!"),
        ("record", "{'null': None, 'text': 't'}"),
        ("[1, [record.null]]", "[1, [None]]"),
        ("record.null if 1 else 'x'", "None"),
        ("record.null | upper", "NONE"),
        ("[record.null, 1] | join('+')", "None+1"),
        ("'<{}>'.format(record.null)", "<None>"),
    ],
)
def test_a_null_is_noted_where_it_is_printed(expression: str, text: str, truncate: bool) -> None:
    rendered = render("a {{ " + expression + " }} ||| b", {"record": {"null": None, "text": "t"}}, truncate=truncate)
    assert rendered.input == f"a {text}"
    assert rendered.notes == {Note.NULL}


@pytest.mark.parametrize(
    "expression",
    [
        "record.text",
        "record.null or 'x'",
        "record.txt or 'x'",
        "record.txt | default('x')",
        "'x' if record.null is none else 'y'",
        "'x' if record.txt is defined else 'y'",
        "record.none_such | length",
        "'x' if record.null | lower == 'a' else 'y'",
        "'x' if record.txt | trim else 'y'",
        "'x' if record.txt",
        "'x' if record.text else ('y' if record.null)",
        "('x' if record.txt) | upper",
        "record.word",
        "0 or ''",
    ],
)
def test_what_is_tested_or_replaced_is_not_noted(expression: str) -> None:
    record = {"record": {"null": None, "text": "t", "word": "None"}}
    assert render("a {{ " + expression + " }} ||| b", record).notes == set()


def test_a_null_among_the_choices_or_as_the_target_is_noted() -> None:
    choices = "{{options.A}} ||| {{options.B}}"
    rendered = render("x ||| {{answer_choices[0]}}", {"options": {"A": "a", "B": None}}, choices)
    assert rendered.choices == ("a", "None")
    assert rendered.notes == {Note.NULL}
    assert render("x ||| {{t}}", {"t": None}).notes == {Note.NULL, Note.NULL_TARGET}
    assert render("x ||| {{t}}", {"t": "None"}).notes == set()


def test_a_target_among_the_choices_is_compared_exactly() -> None:
    assert render("x ||| {{t}}", {"t": "Yes"}, "no ||| yes").notes == {Note.NOT_A_CHOICE}
    assert render("x ||| {{t}}", {"t": " yes\n"}, "no ||| yes").notes == set()
    assert render("x ||| {{t}}", {"t": "Yes"}).notes == set()


@pytest.mark.parametrize("text", ["\u200b", "\u200b \u200e", "\ufeff\n\u2060"])
def test_a_target_that_shows_nothing_is_noted(text: str) -> None:
    assert render("x ||| {{t}}", {"t": text}).notes == {Note.BLANK_TARGET}
    assert render("x ||| {{t}}", {"t": text + "."}).notes == set()
    assert render("x ||| {{t}}", {"t": " \u00a0\t"}).notes == {Note.NO_LABEL}


def test_notes_belong_to_their_record_and_are_no_part_of_equality() -> None:
    assert label("1").notes
    assert not label(1).notes
    assert label(-1) == label(1)


def test_which_notes_make_a_task_useless() -> None:
    assert not {Note.NULL, Note.NOT_A_CHOICE} & {note for note in Note if note.is_fatal}
    assert len([note for note in Note if note.is_fatal]) == 6


def test_counts_are_put_into_sentences() -> None:
    rendered = [label(value) for value in ("0", 1, -1, 5)]
    counts = Counter(note for one in rendered for note in one.notes)
    lines = describe_notes(counts, len(rendered))
    assert lines[0].startswith("2 of 4 targets are <NO LABEL>")
    assert lines[1].startswith("in 2 of 4 examples the label indexes no answer choice")
    assert lines[2].startswith("in 1 of 4 examples the label is negative")
    assert len(lines) == 3
    assert describe_notes(Counter(), 4) == []
