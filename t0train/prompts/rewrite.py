"""What is changed in a template's syntax tree before it is compiled. None of it changes a text that is printed.

Jinja decides at compile time what is called where; only on the tree can we see that a value is printed, that a field
is read and not called, or that a choice is selected. The operations put in are filters of names that no template can
write, defined in `t0train.prompts.jinja`.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

MOST_CHARACTERS = 2048  # of a printed expression, where promptsource truncates
PRINT = " print"
PRINT_TRUNCATED = " print truncated"
JOIN = " join"
SELECT_CHOICE = " select choice"
CHOICES = "answer_choices"


class Rewriter(NodeTransformer):
    """Rewrites a parsed template in place: `Rewriter().visit(tree)`."""

    def __init__(self) -> None:
        self._called: set[int] = set()

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 (named after the node, as Jinja wants it)
        """Every printed expression goes through our own conversion to text."""
        self.generic_visit(node)
        node.nodes = [part if isinstance(part, nodes.TemplateData) else _printed(part) for part in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """`a ~ b` converts to text as printing does."""
        self.generic_visit(node)
        return _filter(JOIN, nodes.List(list(node.nodes), lineno=node.lineno))

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        """A method that is called stays an attribute: `row.items()` works whatever fields the row has."""
        self._called.add(id(node.node))
        return self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        """`row.values` that is not called is the field `values`, if there is one: data before methods."""
        self.generic_visit(node)
        if id(node) in self._called:
            return node
        return nodes.Getitem(node.node, nodes.Const(node.attr, lineno=node.lineno), node.ctx, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """`answer_choices[label]` is noted where it selects nothing, or counts from the end."""
        self.generic_visit(node)
        selected = isinstance(node.node, nodes.Name) and node.node.name == CHOICES
        if selected and not isinstance(node.arg, nodes.Slice) and _reads_a_name(node.arg):
            return _filter(SELECT_CHOICE, node.node, node.arg)
        return node


def _printed(node: nodes.Expr) -> nodes.Expr:
    """`node` as text. promptsource's `x | string | truncate(2048)` becomes one operation, which is also faster."""
    if isinstance(node, nodes.Filter) and node.name == "truncate" and node.args == [nodes.Const(MOST_CHARACTERS)]:
        text = node.node
        if isinstance(text, nodes.Filter) and text.name == "string" and text.node is not None and not node.kwargs:
            return _filter(PRINT_TRUNCATED, text.node)
    return _filter(PRINT, node)


def _reads_a_name(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) or any(True for _ in node.find_all(nodes.Name))


def _filter(name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)
