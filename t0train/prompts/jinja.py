"""Jinja as promptsource sets it up, compiled once, in jinja2's sandbox, with every random draw keyed by a seed.

Source of the environment: promptsource 0.2.3, `promptsource/templates.py` (global `zip`, filters `choice`,
`most_frequent`, `highlight`, otherwise jinja2's defaults, so an undefined name prints as "").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context

from t0train.prompts.filters import make_filters, make_tests
from t0train.prompts.methods import MUTATORS, Environment
from t0train.prompts.printing import STATE
from t0train.prompts.rendering import Rendering
from t0train.prompts.rewrite import MOST_CHARACTERS, Rewriter

MOST_SOURCE = 30_000  # characters of a source; the longest of promptsource's has 2,849
TRUNCATED_END = f" | string | truncate({MOST_CHARACTERS}) }}}}"


def _environment() -> Environment:
    environment = Environment()
    environment.globals["zip"] = zip
    del environment.globals["lipsum"]  # draws words at random, without a seed
    environment.filters = make_filters()
    environment.tests = make_tests()
    return environment


ENVIRONMENT = _environment()
_GLOBALS = dict(ENVIRONMENT.globals)


@dataclass(frozen=True)
class Program:
    """One compiled Jinja source.

    Attributes:
        reads: every name that it looks up outside itself, Jinja's globals included.
        columns: those of `reads` that can only come from the row (and `answer_choices`).
        required: those of `columns` without a fallback in the source (`is defined`, `default`).
        mutates: it names list or dict methods that change their object; a row must be copied first.
        draws: it contains a random filter.
    """

    template: jinja2.Template
    reads: frozenset[str]
    columns: frozenset[str]
    required: frozenset[str]
    mutates: bool
    draws: bool

    def run(self, scope: dict[str, Any]) -> str:
        """The rendered text. Whatever Jinja or the template's own expressions raise comes through.

        Args:
            scope: as `make_scope` gives it.
        """
        # As Template.render does, without its merge of the globals, which takes half of the time.
        context = Context(ENVIRONMENT, scope, None, self.template.blocks)
        return "".join(self.template.root_render_func(context))


def make_scope(values: dict[str, Any], state: Rendering) -> dict[str, Any]:
    """The names that a template sees: Jinja's functions, hidden by columns of their names, and our state."""
    return {**_GLOBALS, **values, STATE: state}


@lru_cache(maxsize=8192)
def compile_source(source: str) -> Program:
    """Compile and analyse a Jinja source; the result is shared by all templates that have the same text.

    Raises:
        jinja2.TemplateSyntaxError: the source is not valid Jinja.
    """
    if len(source) > MOST_SOURCE:
        raise jinja2.TemplateSyntaxError(f"it has {len(source):,} characters, at most {MOST_SOURCE:,} are read", 1)
    try:
        return _compile(source)
    except RecursionError as error:
        raise jinja2.TemplateSyntaxError("it is nested too deeply", 1) from error
    except (SyntaxError, MemoryError, OverflowError, ValueError) as error:  # of the Python code that Jinja makes of it
        raise jinja2.TemplateSyntaxError(f"it cannot be compiled: {error}", 1) from error


def _compile(source: str) -> Program:
    tree = ENVIRONMENT.parse(source)
    columns = frozenset(meta.find_undeclared_variables(tree))
    # Jinja reports a namespace that an inner block assigns to as undeclared; only {% set %} can have made it.
    columns -= {node.name for node in tree.find_all(nodes.NSRef)}
    names = {node.name for node in tree.find_all(nodes.Name)}
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    strings = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}  # map("choice")
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    required = columns - _with_fallback(tree)
    Rewriter(_expressions(source)).visit(tree).set_environment(ENVIRONMENT)
    return Program(
        template=ENVIRONMENT.from_string(tree),
        reads=columns | (names & _GLOBALS.keys()),
        columns=columns,
        required=required,
        mutates=bool(MUTATORS & (attributes | strings)),  # as a string: x["pop"](), x | attr("pop")
        draws=bool({"choice", "random"} & (filters | strings)),
    )


def _expressions(source: str) -> list[str]:
    """The printed expressions of a source, in order, as they are written."""
    expressions: list[str] = []
    inside = False
    for _, kind, text in ENVIRONMENT.lex(source):
        if kind == "variable_begin":
            expressions.append("")
        inside = kind != "variable_end" and (inside or kind == "variable_begin")
        if inside and kind != "variable_begin":
            expressions[-1] += text
    end = TRUNCATED_END.removesuffix("}}")
    return [expression.removesuffix(end).strip() for expression in expressions]


def _with_fallback(tree: nodes.Template) -> set[str]:
    """Names for which the source says what to do when they are undefined."""
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaulted = [filter_.node for filter_ in tree.find_all(nodes.Filter) if filter_.name in ("default", "d")]
    return {node.name for node in asked + defaulted if isinstance(node, nodes.Name)}
