"""Rendering rules, each worked by hand (reference: promptsource 0.2.3, and T0's apply_template)."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from jinja2.sandbox import SandboxedEnvironment

from t0train.core.errors import UserError
from t0train.prompts import Rendered, Template, columns_read


def make(jinja: str, answer_choices: str | None = None, **fields: Any) -> Template:
    return Template("set", "part", "a name", "uid", jinja, answer_choices, **fields)


def test_parts_are_split_at_the_separator_and_stripped() -> None:
    assert make(" Is {{a}} so? \n|||\n {{b}} ").render_parts({"a": "it", "b": "yes"}) == ["Is it so?", "yes"]


def test_a_separator_in_a_string_column_stays_text() -> None:
    assert make("{{a}} ||| {{b}}").render({"a": "x|||y", "b": "|||"}) == Rendered("x|||y", "|||", None)


@pytest.mark.parametrize("column", [["x|||y"], {"k": "x|||y"}])
def test_a_separator_inside_a_list_or_dict_splits(column: Any) -> None:
    template = make("{{a[0] or a['k']}} ||| end")
    assert template.render_parts({"a": column}) == ["x", "y", "end"]
    assert template.render({"a": column}) is None


def test_choices_are_split_stripped_and_unprotected() -> None:
    template = make("Pick from {{answer_choices | join(', ')}} ||| {{answer_choices[n]}}", " {{a}} |||b ||| c")
    assert template.render({"a": "p|q", "n": 1}) == Rendered("Pick from p|q, b, c", "b", ("p|q", "b", "c"))
    # In the prompt an unprotected choice splits again, as in promptsource.
    assert template.render_parts({"a": "p|||q", "n": 1}) == ["Pick from p", "q, b, c", "b"]


def test_an_empty_target_is_no_label_and_an_empty_input_drops_the_record() -> None:
    template = make("{{a}} ||| {{b}}")
    assert template.render({"a": "x", "b": " "}) == Rendered("x", "<NO LABEL>", None)
    assert template.render({"a": " \n", "b": "y"}) is None


@pytest.mark.parametrize("jinja", ["{% if a == 1 %}{{a}} ||| x{% endif %}", "only an input {{a}}", "{{a}} ||| b ||| c"])
def test_records_without_exactly_two_parts_are_dropped(jinja: str) -> None:
    assert make(jinja).render({"a": 2}) is None


def test_hyphens_of_column_names_become_underscores() -> None:
    template = make("{{text}} ||| {{answer_choices[label_coarse]}}", "num ||| loc")
    record = {"label-coarse": 1, "text": "Where?"}
    assert template.render(record) == Rendered("Where?", "loc", ("num", "loc"))
    assert template.columns == {"text", "label_coarse"}
    template.check_columns(record)


# Truncation: jinja's truncate(2048) leaves 2048 + 5 characters alone, and otherwise keeps 2045, up to the last blank.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 2053, "x" * 2053),
        ("x" * 2054, "x" * 2045 + "..."),
        ("word " * 500, "word " * 408 + "word..."),  # 409 * 5 = 2045 ends in a blank: cut back to the word before it
        ("ab " * 700, "ab " * 680 + "ab..."),  # 681 * 3 = 2043, then "ab" cut off whole
    ],
)
def test_printed_expressions_are_truncated_in_input_and_target(text: str, expected: str) -> None:
    assert make("{{a}} ||| {{a}}").render_parts({"a": text}) == [expected, expected]
    assert make("{{a}} ||| {{a}}").render_parts({"a": text}, truncate=False) == [text.strip()] * 2


def test_truncation_binds_to_the_last_operand_only() -> None:
    long = "x" * 3000
    cut = "x" * 2045 + "..."
    template = make("{{ a if yes else a }} ||| {{ a + a }}")
    assert template.render_parts({"a": long, "yes": True}) == [long, long + cut]
    assert template.render_parts({"a": long, "yes": False}) == [cut, long + cut]


def test_choices_and_conditions_are_not_truncated() -> None:
    long = "x" * 3000
    template = make("{% set b = a %}{{b | length}} {% if b == a %}same{% endif %} ||| {{answer_choices[0]}}", "{{a}}")
    rendered = template.render({"a": long})
    assert rendered == Rendered("3000 same", "x" * 2045 + "...", (long,))


def test_braces_in_the_data_are_text() -> None:
    assert make("{{a}} ||| x").render({"a": "{{b}} }} {% c %}"}) == Rendered("{{b}} }} {% c %}", "x", None)


def test_most_frequent_lists_all_items_of_the_highest_count() -> None:
    template = make("{{ a | most_frequent | join('+') }} ||| {{ b | most_frequent }}")
    assert template.render_parts({"a": ["x", "y", "y", "x", "z"], "b": []}) == ["x+y", "None"]


def test_zip_and_highlight() -> None:
    template = make("{% for x, y in zip(a, b) %}{{x}}{{y}} {% endfor %} ||| {{ a[0] | highlight }}")
    expected = ["p1 q2", "<span style='color: #F08080'>p</span>"]
    assert template.render_parts({"a": ["p", "q"], "b": [1, 2]}) == expected


@pytest.mark.parametrize("jinja", ["{{ a | choice }} ||| x", "{{ a | random }} ||| x", "{{ a[0:3] | choice }} ||| x"])
def test_draws_depend_on_the_seed_alone(jinja: str) -> None:
    template, record = make(jinja), {"a": ["p", "q", "r"]}
    drawn = [template.render_parts(record, seed)[0] for seed in range(40)]
    assert drawn == [template.render_parts(record, seed)[0] for seed in range(40)]
    assert set(drawn) == {"p", "q", "r"}


def test_a_draw_among_choices_is_the_same_in_the_prompt_and_the_choices() -> None:
    template = make("{{answer_choices[0]}} ||| x", "{{ ['p', 'q', 'r', 's'] | choice }} ||| t")
    rendered = [template.render({}, seed) for seed in range(30)]
    assert all(example and example.choices and example.choices[0] == example.input for example in rendered)
    assert len({example.input for example in rendered if example}) == 4
    assert template.fixed_choices is None


def test_fixed_choices() -> None:
    assert make("{{a}}", "yes ||| no ").fixed_choices == ("yes", "no")
    assert make("{{a}}", "{{a}} ||| no").fixed_choices is None
    assert make("{{a}}").fixed_choices is None


def test_a_template_cannot_change_the_record() -> None:
    record = {"a": ["p", "q"], "b": {"k": ["r"]}}
    before = copy.deepcopy(record)
    template = make("{{ a.pop() }} {{ b['k'].append('s') or b['k'] | join }} ||| {{ a | length }}")
    assert template.render(record) == template.render(record) == Rendered("q rs", "1", None)
    assert record == before


def test_a_rendered_template_can_be_pickled() -> None:
    template = make("{{a}} ||| b", "x ||| y", metrics=("Accuracy",))
    template.render({"a": 1})
    again = pickle.loads(pickle.dumps(template))
    assert again == template
    assert hash(again) == hash(template)
    assert again.render({"a": 1}) == template.render({"a": 1})


def test_the_fingerprint_follows_the_text_alone() -> None:
    template = make("{{a}} ||| b", "x ||| y")
    assert template.fingerprint == make("{{a}} ||| b", "x ||| y", original_task=True).fingerprint
    assert template.fingerprint != make("{{a}} ||| b", "x ||| z").fingerprint
    assert template.fingerprint != make("{{a}} ||| c", "x ||| y").fingerprint


def test_columns_are_what_the_prompt_and_the_choices_read() -> None:
    template = make(
        "{% set own = 1 %}{% set ns = namespace(n=0) %}{% for x in items %}{% set ns.n = own %}{{x}}{% endfor %}"
        "{{ range(3) | join }}{{ nested.key }} ||| {{ answer_choices[label] }}",
        "{{ first }} ||| {{ second | lower }}",
    )
    assert template.columns == {"items", "nested", "label", "first", "second"}


def test_a_missing_column_is_an_error_that_names_the_nearest() -> None:
    template = make("{{sentence}} ||| {{answer_choices[label]}}", "{{one}}")
    with pytest.raises(UserError, match=r"'a name' of set/part.*'label'.*'sentence': did you mean 'sentences'"):
        template.check_columns(["sentences", "lab-el", "one"])
    with pytest.raises(UserError, match="'one'"):
        template.render({"sentence": "x", "label": 0})


def test_a_column_with_a_fallback_may_be_missing() -> None:
    template = make("{{a}}{% if b is defined %}{{b}}{% endif %}{{ c | default('none') }} ||| x")
    assert template.columns == {"a", "b", "c"}
    template.check_columns(["a"])
    assert template.render({"a": "1"}) == Rendered("1none", "x", None)


def test_a_record_that_the_template_fails_on_is_named() -> None:
    with pytest.raises(UserError, match=r"'a name' of set/part fails on a record: .*no attribute 'key'.*a=7"):
        make("{{ a.key.deeper }} ||| x").render({"a": 7})


def test_a_column_named_answer_choices_is_refused() -> None:
    with pytest.raises(UserError, match="answer_choices"):
        make("{{a}} ||| b").render({"a": 1, "answer_choices": ["x"]})


@pytest.mark.parametrize(("jinja", "reason"), [("{% if a %} ||| b", "endif"), ("{{ a | nosuch }} ||| b", "nosuch")])
def test_invalid_jinja_is_refused_by_name(jinja: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"'a name' of set/part is not valid Jinja: line 1: .*{reason}"):
        make(jinja).render({"a": 1})


@pytest.mark.parametrize(
    "expression",
    ["''.__class__.__mro__", "zip.__globals__['x']", "a.__class__.__subclasses__()", "range(10 ** 9) | list"],
)
def test_templates_run_in_a_sandbox(expression: str) -> None:
    with pytest.raises(UserError, match="fails on a record"):
        make("{{ " + expression + " }} ||| x").render({"a": "text"})


JINJAS_OWN = ("zip", "range", "dict", "namespace", "cycler", "joiner", "lipsum")


@pytest.mark.parametrize("name", JINJAS_OWN)
def test_a_column_named_like_one_of_jinjas_functions_is_read(name: str) -> None:
    template = make("Which? {{" + name + "}} ||| {{other}}")
    columns = columns_read([template], ["more", name, "other"])
    assert columns == [name, "other"]
    assert template.render({"other": "o", name: "02134"}) == Rendered("Which? 02134", "o", None)


def test_columns_are_chosen_by_their_names_in_templates() -> None:
    templates = [make("{{label_coarse}} ||| {{a}}"), make("{{a}} ||| x", "{{b}} ||| c")]
    assert columns_read(templates, ["a", "b", "c", "label-coarse"]) == ["a", "b", "label-coarse"]
    assert columns_read([make("fixed ||| text")], ["a"]) == []


def test_two_columns_of_one_name_in_templates_are_refused() -> None:
    record = {"a-b": 1, "a_b": 2, "c": 3}
    with pytest.raises(UserError, match="'a-b' and 'a_b' are both 'a_b'"):
        make("{{a_b}} ||| x").check_columns(record)
    with pytest.raises(UserError, match="'a-b' and 'a_b' are both 'a_b'"):
        make("{{a_b}} ||| x").render(record)
    assert make("{{c}} ||| x").render(record) == Rendered("3", "x", None)


def test_a_text_that_is_marked_as_safe_is_formatted_as_jinja_does() -> None:
    expected = SandboxedEnvironment().from_string("{{ ('<b>{}</b>' | safe).format(t) }}").render(t="<i>")
    assert make("{{ ('<b>{}</b>' | safe).format(t) }} ||| x").render({"t": "<i>"}) == Rendered(expected, "x", None)
