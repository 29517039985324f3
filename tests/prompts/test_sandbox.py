"""Rendering is a function of the record: it prints data and nothing else, and leaves the record as it is."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.prompts import Rendered, Template

METHODS = ["values", "items", "keys", "count", "index", "title", "format", "pop", "get", "copy", "update", "split"]


def make(jinja: str, answer_choices: str | None = None) -> Template:
    return Template("set", "", "a name", "uid", jinja, answer_choices)


def fresh_record() -> dict[str, Any]:
    return {
        "l": ["p", "q", ["r", {"s": "t"}]],
        "d": {"a": ["u"], "b": {"c": "v"}, "pop": "w"},
        "t": "some words",
        "n": 3,
    }


@pytest.mark.parametrize("spelling", ["{{ table.NAME }}", "{{ table['NAME'] }}", "{{ '{0.NAME}'.format(table) }}"])
@pytest.mark.parametrize("name", METHODS)
def test_a_field_named_like_a_method_gives_the_field(name: str, spelling: str) -> None:
    template = make(spelling.replace("NAME", name) + " ||| x")
    assert template.render({"table": {name: "a field"}}) == Rendered("a field", "x", None)


@pytest.mark.parametrize("name", METHODS)
def test_a_field_named_like_a_method_deep_inside(name: str) -> None:
    record = {"list": [{"cell": {name: "one"}}, {"cell": {name: "two"}}]}
    jinja = "{% for x in list %}{{ x.cell.NAME }} {% endfor %}{{ list | map(attribute='cell.NAME') | join('+') }} ||| x"
    assert make(jinja.replace("NAME", name)).render(record) == Rendered("one two one+two", "x", None)


def test_methods_that_are_called_are_methods_whatever_fields_there_are() -> None:
    record = {"d": {"items": "field", "keys": "k"}, "t": "a b", "l": ["x", "y", "x"]}
    loop = "{% for k, v in d.items() %}{{k}}={{v}} {% endfor %}"
    jinja = loop + "{{ t.split()[1] }}{{ t.replace('a', 'c') }} ||| {{ l.count('x') }}"
    assert make(jinja).render(record) == Rendered("items=field keys=k bc b", "2", None)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("d.values", "the method 'values' of a dict"),
        ("t.title", "the method 'title' of a str"),
        ("l.count", "the method 'count' of a list"),
        ("d['values']", "the method 'values' of a dict"),
        ("d | attr('values')", "the method 'values' of a dict"),
        ("range", "the function"),
        ("dict", "the function 'dict'"),
        ("namespace", "the function 'Namespace'"),
        ("namespace(a=1)", "'Namespace'"),
        ("cycler('a')", "'Cycler'"),
        ("joiner()", "'Joiner'"),
        ("zip(l, l)", "'zip'"),
        ("l | map('upper')", "a generator"),
        ("[d.values]", "the method 'values'"),
        ("{'a': [t.title]}", "the method 'title'"),
        ("l | batch(2)", "a generator"),
        ("self", "'TemplateReference'"),
    ],
)
def test_printing_what_is_no_data_is_refused_by_template_and_expression(
    expression: str, found: str, truncate: bool
) -> None:
    template = make("{{ t }}\n{{  " + expression + " }} ||| x")
    with pytest.raises(UserError) as refused:
        template.render(fresh_record(), truncate=truncate)
    message = str(refused.value)
    assert message.startswith("template 'a name' of set fails on a record:")
    assert f"`{expression}` prints " in message
    assert found in message


@pytest.mark.parametrize(
    "expression",
    [
        "d.values ~ '!'",
        "[t.title] | join(',')",
        "[d.values, 1] | join",
        "d.values | upper",
        "t.title | string | length",
        "t | replace('some', d.values)",
        "('%s' % t.title)",
        "'%s' | format(t.title)",
        "'{}'.format(t.title)",
        "'{!r}'.format([t.title])",
        "{'a': d.values} | pprint",
        "d.values | tojson",
        "d.values | urlencode",
        "(d | attr('values')) | e",
        "macro",
    ],
)
def test_a_method_does_not_become_text_in_any_other_way(expression: str) -> None:
    template = make("{% macro macro() %}{% endmacro %}{{ " + expression + " }} ||| x")
    with pytest.raises(UserError, match="fails on a record"):
        template.render(fresh_record())


@pytest.mark.parametrize(
    "value",
    [
        1,
        2.5,
        True,
        None,
        "t",
        b"b",
        Decimal("1.50"),
        datetime.date(2020, 1, 2),
        datetime.datetime(2020, 1, 2, 3),
        [1],
        {},
    ],
)
def test_data_print_as_python_prints_them(value: Any) -> None:
    rendered = make("a {{ x }} {{ [x] }} ||| y").render({"x": value})
    assert rendered == Rendered(f"a {value} {[value]}", "y", None)


def test_data_that_mention_an_address_are_data() -> None:
    text = "<function f at 0x7f2a00000000>"
    assert make("{{ x }} {{ [x] }} ||| y").render({"x": text}) == Rendered(f"{text} ['{text}']", "y", None)


@pytest.mark.parametrize(
    "expression",
    [
        "when.today()",
        "when.now()",
        "when.timestamp()",
        "when.astimezone()",
        "lipsum()",
        "lipsum",
        "(d.keys() - e.keys())",
    ],
)
def test_what_is_another_value_in_another_process_is_refused(expression: str) -> None:
    record = {"when": datetime.datetime(2020, 1, 2), "d": {"a": 1, "b": 2, "c": 3}, "e": {"c": 4}}
    with pytest.raises(UserError, match="'a name' of set"):
        make("{{ " + expression + " }} ||| x").render(record)


@pytest.mark.slow
def test_texts_are_the_same_in_another_process() -> None:
    """With another hash seed and other addresses."""
    code = (
        "from t0train.prompts import Template\n"
        "t = Template('set', '', 'n', 'u', '{{ l | unique | join }}{{ d.values() | list }}{{ l | groupby(0) }}"
        "{{ d }}{{ l | random }} ||| {{ l | choice }}')\n"
        "print(t.render({'l': ['b', 'a', 'b'], 'd': {'y': 1, 'x': 2}}, seed=5))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


CHANGES = [
    "l.append('x')",
    "l.pop()",
    "l.insert(0, 'x')",
    "l.extend(['x'])",
    "l.remove('p')",
    "l.clear()",
    "l[:2].sort(reverse=true)",
    "l.reverse()",
    "l[2].append('x')",
    "l[2][1].update(s='x')",
    "d.pop('a')",
    "d.popitem()",
    "d.clear()",
    "d.setdefault('x', 1)",
    "d.update({'x': 1})",
    "d.b.update(c='x')",
    "l['append']('x')",
    "d['clear']()",
    "d['po' ~ 'pitem']()",
    "(l | attr('append'))('x')",
    "(l | attr('app' ~ 'end'))('x')",
    "([l] | map(attribute='append') | first)('x')",
    "([l] | map('attr', 'append') | first)('x')",
    "([l] | map(attribute='app' ~ 'end') | first)('x')",
    "dict.update(d, x=1)",
    "(dict | attr('update'))(d, x=1)",
    "dict['upd' ~ 'ate'](d, x=1)",
    "l.__setitem__(0, 'x')",
    "(l | attr('__setitem__'))(0, 'x')",
    "l.__iadd__(['x'])",
    "[2, 1].sort(key=l.append)",
    "([2, 1]['so' ~ 'rt'])(key=l['app' ~ 'end'])",
    "l.copy().append('x')",
    "(l | list)[2].append('x')",
    "(l | sort)",
    "(l | reverse | list)",
    "(d.values() | list)[0].append('x')",
    "(d | dictsort)[0][1].append('x')",
    "(l | batch(2) | list)[1][0].append('x')",
    "(d.items() | list)[0][1].append('x')",
    "(l | sum(start=l))",
    "dict(d).clear()",
    "dict(d)['a'].append('x')",
    "(zip(l, l) | list)[2][0].append('x')",
    "('{0.append}'.format(l))",
    "answer_choices.append(l)",
    "namespace(x=l).x.append('x')",
    "cycler(l).next().append('x')",
]
STATEMENTS = [
    "{{% set y = {} %}}",
    "{{% if {} %}}{{% endif %}}",
    "{{% for y in [1, 2] %}}{{% set z = {} %}}{{% endfor %}}",
    "{{% set ns = namespace(f=0) %}}{{% set ns.f = {} %}}",
    "{{% set y %}}{{{{ {} }}}}{{% endset %}}",
    "{{% macro m(l, d) %}}{{% set y = {} %}}{{% endmacro %}}{{{{ m(l, d) }}}}",
    "{{% with l = l, d = d %}}{{% set y = {} %}}{{% endwith %}}",
    "{{{{ {} }}}}",
]


def render_or_refuse(template: Template, record: dict[str, Any]) -> Any:
    try:
        return template.render(record)
    except UserError as error:
        return str(error)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    changes=st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(STATEMENTS)), min_size=1, max_size=3),
    in_choices=st.booleans(),
)
def test_no_template_changes_a_record(changes: list[tuple[str, str]], in_choices: bool) -> None:
    source = "".join(statement.format(change) for change, statement in changes)
    template = make("{{ l }} ||| x", source + "a ||| b") if in_choices else make(source + "{{ l }} ||| x", "a ||| b")
    record = fresh_record()
    first = render_or_refuse(template, record)
    assert record == fresh_record()
    assert render_or_refuse(template, record) == first
    unchanged = make("{{ l }}{{ d }} ||| x").render(record)
    assert unchanged is not None
    assert unchanged.input == f"{fresh_record()['l']}{fresh_record()['d']}"


@pytest.mark.parametrize("change", CHANGES)
def test_no_spelling_changes_a_record(change: str) -> None:
    record = fresh_record()
    for statement in STATEMENTS:
        render_or_refuse(make(statement.format(change) + "{{ l }} ||| x", "a ||| b"), record)
        assert record == fresh_record()


def test_choices_cannot_be_changed_by_the_prompt() -> None:
    template = make("{% set y = answer_choices.append('c') %}{{ answer_choices | length }} ||| x", "a ||| b")
    for _ in range(2):
        assert template.render({}) == Rendered("3", "x", ("a", "b"))
    assert template.fixed_choices == ("a", "b")
