"""What is changed in a template's syntax tree before it is compiled. None of it changes a text that is printed.

Jinja decides at compile time what is called where; only on the tree can we see that a value is printed, that a field
is read and not called, that a choice is selected, or that a loop begins. The operations put in are filters of names
that no template can write, defined in `t0train.prompts.filters`.
"""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from t0train.prompts.costs import MOST_BITS, MOST_DIGITS
from t0train.prompts.rendering import MACRO, NODE, STEP

MOST_CHARACTERS = 2048  # of a printed expression, where promptsource truncates
CHOICES = "answer_choices"
PRINT = " print"
PRINT_TRUNCATED = " print truncated"
JOIN = " join"
SELECT_CHOICE = " select choice"
SPEND = " spend"
COUNT = " count"
COUNT_DEEP = " count deep"
KEY = " key"
PRINTED = " printed "  # before the name of a filter whose result is printed
# Filters that begin by turning their value into text.
TEXT_FILTERS = frozenset(
    [
        "capitalize",
        "center",
        "e",
        "escape",
        "forceescape",
        "format",
        "lower",
        "replace",
        "safe",
        "string",
        "striptags",
        "title",
        "trim",
        "upper",
        "wordcount",
    ]
)


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
        """A method that is called stays an attribute: `row.items()` works whatever fields the row has."""
        self._called.add(id(node.node))
        return self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        """`row.values` that is not called is the field `values`, if there is one: data before methods."""
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
