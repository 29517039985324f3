"""Jinja as promptsource sets it up, compiled once, in jinja2's sandbox, with every random draw keyed by a seed.

Source of the environment: promptsource 0.2.3, `promptsource/templates.py` (global `zip`, filters `choice`,
`most_frequent`, `highlight`, otherwise jinja2's defaults, so an undefined name prints as "").

Before a template is compiled its syntax tree is changed, which changes no text that is printed. Jinja decides at
compile time what is called where; only on the tree can we see that a value is printed, that a field is read and not
called, that a choice is selected, or that a loop begins. The operations put in are filters of names that no template
can write, defined in `t0train.prompts.filters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from t0train.prompts.costs import MOST_BITS, MOST_DIGITS
from t0train.prompts.filters import (
    CHOICES,
    COUNT,
    COUNT_DEEP,
    JOIN,
    KEY,
    MOST_CHARACTERS,
    PRINT,
    PRINT_TRUNCATED,
    PRINTED,
    SELECT_CHOICE,
    SPEND,
    TEXT_FILTERS,
    make_filters,
    make_tests,
)
from t0train.prompts.rendering import MACRO, NODE, STATE, STEP, Rendering
from t0train.prompts.sandbox import MUTATORS, Environment

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
        columns: those of `reads` that can only come from the record (and `answer_choices`).
        required: those of `columns` without a fallback in the source (`is defined`, `default`).
        mutates: it names list or dict methods that change their object; a record must be copied first.
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
    tested = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaulted = [filter_.node for filter_ in tree.find_all(nodes.Filter) if filter_.name in ("default", "d")]
    return {node.name for node in tested + defaulted if isinstance(node, nodes.Name)}


class Rewriter(NodeTransformer):
    """Rewrites a parsed template in place: `Rewriter(expressions).visit(tree)`.

    Args:
        expressions: the source of each printed expression, in order, for messages.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        self._expressions = iter(expressions)
        self._expression = ""
        self._called: set[int] = set()

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 (named after the node, as Jinja wants it)
        """Every printed expression goes through our own conversion to text."""
        for i, part in enumerate(node.nodes):
            if not isinstance(part, nodes.TemplateData):
                self._expression = next(self._expressions, "")
                node.nodes[i] = self._printed(self.visit(part))
                self._expression = ""
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """`a ~ b` converts to text as printing does."""
        self.generic_visit(node)
        return self._filter(JOIN, nodes.List(list(node.nodes), lineno=node.lineno), self._place())

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        """A method that is called stays an attribute: `record.items()` works whatever fields the record has."""
        self._called.add(id(node.node))
        return self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        """`record.values` that is not called is the field `values`, if there is one: data before methods."""
        called = id(node) in self._called
        self.generic_visit(node)
        if called:
            return node
        return nodes.Getitem(node.node, nodes.Const(node.attr, lineno=node.lineno), node.ctx, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """`answer_choices[label]` is noted where it selects nothing, or counts from the end; a slice is a copy."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return self._filter(COUNT, node)
        if isinstance(node.node, nodes.Name) and node.node.name == CHOICES and _reads_a_name(node.arg):
            return self._filter(SELECT_CHOICE, node.node, node.arg)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        """A key that is computed may be long."""
        self.generic_visit(node)
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const):
                pair.key = self._filter(KEY, pair.key)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """A comparison goes through both values, `in` through the right one, or through the key that it looks up."""
        self.generic_visit(node)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Const):
                operand.expr = self._filter(COUNT_DEEP, operand.expr)
        if node.ops[0].op in ("in", "notin") and not isinstance(node.expr, nodes.Const):
            node.expr = self._filter(COUNT_DEEP, node.expr)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Every step of a loop costs, also one that the loop's own condition leaves out."""
        node.iter = self.visit(node.iter)
        node.body = self._body(node.body)
        if node.test is not None:
            step = self._filter(SPEND, nodes.Const(STEP + _cost(node.test), lineno=node.lineno))
            node.test = nodes.And(step, self.visit(node.test), lineno=node.lineno)
        node.else_ = [self.visit(child) for child in node.else_]
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        """A macro may call itself."""
        step = MACRO + sum(map(_cost, node.defaults))
        node.defaults = [self.visit(value) for value in node.defaults]
        node.body = self._body(node.body, step)
        return node

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        """So may a block, as `self.name()`."""
        node.body = self._body(node.body, MACRO)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        """A number may not be written either that is larger than what may be computed."""
        if isinstance(node.value, int) and node.value.bit_length() > MOST_BITS:
            raise TemplateSyntaxError(f"a number of more than {MOST_DIGITS} digits", node.lineno)
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        """As a macro."""
        node.call = self.visit(node.call)
        step = MACRO + sum(map(_cost, node.defaults))
        node.defaults = [self.visit(value) for value in node.defaults]
        node.body = self._body(node.body, step)
        return node

    def _body(self, body: Sequence[nodes.Node], step: int = STEP) -> list[nodes.Node]:
        """What is repeated, its costs first: those of a step, of what is written in it, and of the text it prints."""
        lineno = body[0].lineno if body else 1
        fixed = sum(len(text.data) for child in body for text in child.find_all(nodes.TemplateData))
        units = nodes.Const(step + fixed + sum(map(_cost, body)), lineno=lineno)
        return [nodes.ExprStmt(self._filter(SPEND, units), lineno=lineno), *(self.visit(child) for child in body)]

    def _printed(self, node: nodes.Expr) -> nodes.Expr:
        """`node` as text. promptsource's `x | string | truncate(2048)` becomes one operation, which is also faster."""
        if isinstance(node, nodes.Filter) and node.name == "truncate" and node.args == [nodes.Const(MOST_CHARACTERS)]:
            text = node.node
            if isinstance(text, nodes.Filter) and text.name == "string" and text.node is not None and not node.kwargs:
                return self._filter(PRINT_TRUNCATED, self._source(text.node), self._place())
        return self._filter(PRINT, self._source(node), self._place())

    def _source(self, node: nodes.Expr) -> nodes.Expr:
        """`node`, with the filters on the way to what it prints exchanged for those that note what that is."""
        if isinstance(node, nodes.CondExpr):
            node.expr1 = self._source(node.expr1)
            # `{{ "x" if y }}` prints nothing on purpose: that is not the undefined value that Jinja makes of it.
            node.expr2 = nodes.Const("", lineno=node.lineno) if node.expr2 is None else self._source(node.expr2)
        elif isinstance(node, nodes.Add):
            node.left, node.right = self._source(node.left), self._source(node.right)
        elif isinstance(node, nodes.Filter) and node.node is not None:
            if node.name in TEXT_FILTERS:
                node.name = PRINTED + node.name
                node.node = self._source(node.node)
            elif node.name == "truncate":
                node.node = self._source(node.node)
        return node

    def _place(self) -> nodes.Const:
        return nodes.Const(self._expression, lineno=1)

    def _filter(self, name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def _cost(node: nodes.Node) -> int:
    """Units for the operations that are written in `node`, whatever values they work on."""
    inside = list(node.find_all(nodes.Node))
    macros = sum(isinstance(part, nodes.Macro | nodes.CallBlock) for part in (node, *inside))
    return NODE * (1 + len(inside)) + MACRO * macros


def _reads_a_name(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) or any(True for _ in node.find_all(nodes.Name))
