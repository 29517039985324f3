"""What a template may cost: each of these would take hours or fill the memory; it is refused within a second or two."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from t0train.core.errors import UserError
from t0train.prompts import Template

RECORD = {
    "text": "some words " * 20,
    "words": ["some", "words"] * 50,
    "table": {"a": [1, 2], "b": "x"},
    "n": 3,
    "data": b"%1000000000d",
    "when": datetime.datetime(2020, 1, 2),
}
MOST_SECONDS = 4.0  # of processor time, on a machine that does other work


def render(jinja: str, truncate: bool = True, answer_choices: str | None = None) -> Any:
    return Template("set", "", "greedy", "uid", jinja, answer_choices).render(RECORD, truncate=truncate)


EXPRESSIONS = [
    "'a' * 10 ** 9",
    "10 ** 9 * 'a'",
    "text * 10 ** 8",
    "[0] * 10 ** 9",
    "(0, 1) * 10 ** 9",
    "10 ** (10 ** 9)",
    "2 ** (2 ** 40)",
    "(n ** 2000) ** 2000",
    "'a' | center(10 ** 9)",
    "'a'.center(10 ** 9)",
    "text.ljust(10 ** 9)",
    "'7'.zfill(10 ** 9)",
    "'\\t'.expandtabs(10 ** 9)",
    "'%1000000000d' % n",
    "'%*d' % (10 ** 9, n)",
    "'%.1000000000f' % n",
    "'%(n)1000000000d' % {'n': n}",
    "'%1000000000d' | format(n)",
    "'{:1000000000}'.format(n)",
    "('{:{w}' + '}').format(n, w=10 ** 9)",
    "'{:.1000000000f}'.format(n)",
    "text | indent(10 ** 9)",
    "text | indent('a' * 10 ** 9)",
    "('a\\n' * 10000) | indent('b' * 10000)",
    "table | tojson(indent=10 ** 9)",
    "words | batch(10 ** 9, 'x') | list",
    "words | slice(10 ** 9) | list",
    "1.5 | round(10 ** 9, 'ceil')",
    "1 | round(-10 ** 9, 'floor')",
    "range(10 ** 9) | list",
    "range(100000) | map('center', 100000) | list | length",
    "range(100000) | map('string') | map('center', 100000) | join | length",
    "(words * 1000) | map('replace', 's', text * 100) | list | length",
    "text.replace('', text * 1000).replace('', text * 1000)",
    "text.replace('o', 'x' * 1000000).replace('x', 'x' * 1000)",
    "text | replace('', 'x' * 1000000)",
    "('x' * 1000000).join(words * 1000)",
    "(words * 1000) | join('x' * 1000000)",
    "('x' * 1000000) | urlize",
    "(([text] * 100000) * 100) | join",
    "text.translate({115: 'x' * 10000000, 111: 'y' * 10000000})",
    "(words * 100) | sum(start='x' * 10 ** 9)",
    "([words] * 100000) | sum(start=[]) | length",
    "('f' * 100000) | int(0, 16)",
    "(data % n) | length",
    "('%*d'.encode() % (10 ** 9, 1)) | length",
    "('ab' * 500000).strip('b' * 100000 ~ 'a')",
    "('<' * 1000000) | striptags",
    "('a' * 1000000) | wordwrap(1)",
    "([[1]] * 1000) | pprint",
    "table['x' * 10000000].y",
    "when.strftime('%c' * 3000000) | length",
]


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_that_costs_too_much_is_refused(expression: str, truncate: bool) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=r"template 'greedy' of set (costs too much on a record: it|.*Range too big)"):
        render("{{ (" + expression + ") }} ||| x", truncate)
    assert time.process_time() - started < MOST_SECONDS


def doubling(first: str, again: str, printed: str) -> str:
    """Statements that make `s.x` twice as large sixty times."""
    loop = "{% for i in range(60) %}{% set s.x = " + again + " %}{% endfor %}"
    return "{% set s = namespace(x=" + first + ") %}" + loop + "{{ " + printed + " }}"


def nested(again: str, times: int) -> str:
    """Statements that put `s.x` into something else, and that again."""
    return "{% for i in range(" + str(times) + ") %}{% set s.x = " + again + " %}{% endfor %}"


def repeated(statements: str, first: str = "") -> str:
    """`first`, then the statements a hundred thousand times."""
    return first + "{% for i in range(100000) %}" + statements + "{% endfor %}"


STATEMENTS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}" + "fixed text " * 1000 + "{% endfor %}",
    "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
    "{% for i in range(100000) %}{% set y = range(100000) | list %}{% endfor %}",
    "{% for i in range(100000) %}{% set y = range(100000) | select('none') | first %}{% endfor %}",
    "{% set big = range(100000) | list %}{% for i in big %}{% if -1 in big %}{% endif %}{% endfor %}",
    "{% set big = range(100000) | list %}{% for i in big %}{% if big == big[:] %}{% endif %}{% endfor %}",
    "{% set big = range(100000) | list %}{% for i in big %}{{ big[1:] | length }}{% endfor %}",
    "{% set big = range(100000) | list %}{% for i in big %}{% set y = big.index(99999) %}{% endfor %}",
    "{% set big = range(100000) | list %}{{ big | select('in', big) | list | length }}",
    "{% set big = range(100000) | list %}{% for i in big %}{% set y = big | sort %}{% endfor %}",
    "{% set big = range(100000) | list %}{% for i in big %}{% set y = big | sum %}{% endfor %}",
    doubling("'ab'", "s.x + s.x", "s.x | length"),
    doubling("'ab'", "s.x ~ s.x", "s.x | length"),
    doubling("[1]", "s.x + s.x", "s.x | length"),
    doubling("['lol']", "[s.x, s.x]", "s.x"),
    doubling("['lol']", "{'a': s.x, 'b': s.x}", "s.x"),
    doubling("1", "dict(a=s.x, b=s.x)", "s.x"),
    doubling("(1,)", "(s.x, s.x)", "{s.x: 1}"),
    doubling("[1]", "zip(s.x, s.x, s.x) | list", "s.x"),
    doubling("[[1], [1]]", "zip(s.x, s.x) | list", "s.x"),
    "{% set l = ['a'] %}{% for i in range(60) %}{% set y = l.extend(l) %}{% endfor %}{{ l | length }}",
    "{% set s = namespace(x='a') %}{% for i in range(60) %}{% set l = [] %}{% set y = l.append(s.x) %}{% set y ="
    " l.append(s.x) %}{% set s.x = l %}{% endfor %}{{ s.x }}",
    "{% set l = [] %}{% set y = l.append(l) %}{% set y = l.append(l) %}{{ l == [l, l] }}",
    doubling("3", "s.x * s.x", "s.x"),
    "{% set s = namespace(x='ab') %}{% for i in range(60) %}{% set s.x %}{{ s.x }}{{ s.x }}{% endset %}{% endfor %}"
    "{{ s.x | length }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(n) %}{% if n %}{{ caller() }}{{ caller() }}{% endif %}{% endmacro %}"
    "{% macro g(n) %}{% if n %}{% call f(1) %}{{ g(n - 1) }}{% endcall %}{% endif %}{% endmacro %}{{ g(60) }}",
    "{% for x in [[1, 2], [3]] recursive %}{{ loop([[1, 2], [3]]) }}{{ loop([[4]]) }}{% endfor %}",
    "{% set l = [1] %}{% for x in l %}{% set y = l.append(x) %}{% endfor %}",
    repeated("{% set y = n + n + n %}" * 1000),
    repeated("{% set y = long is lower %}", "{% set long = 'x' * 1000000 %}"),
    repeated("{% set y = 'q' in d.values() %}", "{% set d = dict(zip(range(100000), range(100000))) %}"),
    repeated("{% set y = namespace(d) %}", "{% set d = dict(zip(range(100000), range(100000))) %}"),
    repeated("{% set y = table[t] %}", "{% set t = (1, 2) * 50000 %}"),
    repeated("{% set y = t in table %}", "{% set t = (1, 2) * 50000 %}"),
    repeated("{% set y = cycler(*big) %}", "{% set big = range(100000) | list %}"),
    repeated("{% set y = '{}'.format(*big) %}", "{% set big = range(100000) | list %}"),
    repeated(
        "{% set y = x | pprint %}", "{% set s = namespace(x=1) %}" + nested("[s.x] * 1", 200) + "{% set x = s.x %}"
    ),
    "{% set s = namespace(x=range(100000)) %}" + nested("zip(s.x)", 300) + "{{ s.x | list | length }}",
    doubling("['lol']", "[s.x, s.x]", "table[s.x].y"),
    doubling("['lol']", "[s.x, s.x]", "table | attr(s.x)"),
    doubling("['lol']", "[s.x, s.x]", "[[1], [2]].index(s.x)"),
]


@pytest.mark.parametrize("statements", STATEMENTS)
def test_loops_and_growth_are_refused(statements: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=r"template 'greedy' of set (costs too much on a record: it|.*RecursionError)"):
        render(statements + "{{text}} ||| x", truncate=False)
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }} ||| x", "nested too deeply"),
        ("{{ " + "[" * 3000 + "]" * 3000 + " }} ||| x", "nested too deeply"),
        ("{{ " + "not " * 5000 + "1 }} ||| x", "nested too deeply"),
        ("{{ a" + ".b" * 9000 + " }} ||| x", "nested too deeply"),
        ("{{ a" + "|upper" * 4000 + " }} ||| x", "nested too deeply"),
        ("{% if a %}" * 1000 + "{% endif %}" * 1000 + " ||| x", "nested too deeply"),
        ("{% for a in b %}" * 60 + "{% endfor %}" * 60 + " ||| x", "cannot be compiled|nested too deeply"),
        ("a" * 60_000 + " ||| x", "60,006 characters"),
    ],
)
def test_a_source_that_is_too_deep_or_too_long_is_refused(jinja: str, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=f"'greedy' of set is not valid Jinja: .*({reason})"):
        render(jinja)
    with pytest.raises(UserError, match=f"'greedy' of set is not valid Jinja: .*({reason})"):
        render("x ||| y", answer_choices=jinja)
    assert time.process_time() - started < 2 * MOST_SECONDS


def test_answer_choices_that_cost_too_much_are_refused() -> None:
    for choices in ("{{ 'a' * 10 ** 9 }}", "{{ text * 10 ** 8 }}"):
        with pytest.raises(UserError, match=r"template 'greedy' of set.*costs? too much"):
            render("x ||| y", answer_choices=choices)


def test_the_reason_is_said() -> None:
    with pytest.raises(UserError, match=r"'greedy' of set costs too much on a record: .*40 million characters"):
        render("{{ (text * 10 ** 8) }} ||| x")


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for i in range(2000) %}{% for w in words %}{{ w }} {% endfor %}{% endfor %} ||| x",
        "{{ ('ab' * 1000000) }} ||| x",
        "{% for w in words * 20 %}{{ w | center(40) }}{{ words.index(w) }}{{ words | join(', ') }}{% endfor %} ||| x",
        "{{ text | indent(4) }}{{ table | tojson(2) }}{{ ('%6.2f' % n) }}{{ '{:>8}'.format(n) }} ||| {{ (2**n) }}",
    ],
)
def test_what_is_large_but_sensible_is_rendered(jinja: str) -> None:
    assert render(jinja) is not None


def test_a_number_with_which_every_step_takes_long_is_not_written_either() -> None:
    with pytest.raises(UserError, match="'greedy' of set is not valid Jinja: line 2: a number of more than 307 digits"):
        render("\n{{ 1" + "0" * 4000 + " }} ||| x")
    assert render("{{ 1" + "0" * 300 + " }} ||| x") is not None


@pytest.mark.parametrize("codec", ["punycode", "idna", "zip", "rot13", "unicode_escape"])
def test_only_the_usual_encodings_are_known(codec: str) -> None:
    with pytest.raises(UserError, match=f"a template may not use the encoding '{codec}'"):
        render("{{ text.encode('" + codec + "') | length }} ||| x")
    assert render("{{ text.encode() | length }} {{ text.encode('UTF-16') | length }} ||| x") is not None


def test_a_message_stays_short_whatever_it_is_about() -> None:
    jinja = {
        "reads columns": "".join("{{ " + f"column{i}" + " }}" for i in range(400)) + " ||| x",
        "fails on a record": "{{ table." + "a" * 20_000 + ".b.c }} ||| x",
        "not valid Jinja": "{{ text | " + "a" * 20_000 + " }} ||| x",
    }
    for reason, source in jinja.items():
        with pytest.raises(UserError, match=reason) as refused:
            render(source)
        assert len(str(refused.value)) < 3000
    with pytest.raises(UserError, match="and 390 more"):
        render(jinja["reads columns"])
