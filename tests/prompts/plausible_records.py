"""Records that fit a template, guessed from how its Jinja source uses each column: most templates print then."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import jinja2
from jinja2 import nodes

STRING_METHODS = {
    "split",
    "lower",
    "upper",
    "replace",
    "strip",
    "lstrip",
    "rstrip",
    "startswith",
    "endswith",
    "capitalize",
}
STRING_FILTERS = {"lower", "upper", "trim", "replace", "capitalize", "title"}
LIST_FILTERS = {"join", "list", "map", "unique", "select", "reject", "selectattr", "rejectattr", "sort", "max", "min"}
ELEMENT_FILTERS = {"choice", "random", "first", "last"}
STRINGS = (
    "A",
    "B",
    "yes",
    "a short text about |||, with braces }} in it.",
    "|||",
    "Two lines\nof text, ünïcode ✓ and  blanks  ",
    "  surrounded by blanks\t",
    "3",
    "1.5",
    "[header] first step. [step] second step, entity @placeholder _ and <mask>.",
    "long " * 450 + "end",
    "x" * 2049,
    "y" * 2054 + "|||" + "z" * 10,
)


@dataclass(eq=False)
class Shape:
    """What the uses of an expression say about its value."""

    kinds: set[str] = field(default_factory=set)
    keys: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None
    constants: list[Any] = field(default_factory=list)
    below: int = 4
    parts: list[str] = field(default_factory=list)  # a string with these parts in it
    elements_of: Shape | None = None  # its value should be found in that list
    cut_from: Shape | None = None  # it is a piece of that string

    def key(self, name: str) -> Shape:
        return self.keys.setdefault(name, Shape())

    def item(self) -> Shape:
        if self.element is None:
            self.element = Shape(cut_from=self.cut_from)
        return self.element

    def compared_with(self, constants: list[Any]) -> None:
        self.constants += constants
        if self.cut_from is not None:
            self.cut_from.parts += [str(constant) for constant in constants]


class Guess:
    """Walks the syntax tree of a source and collects a `Shape` for each name that it does not define itself."""

    def __init__(self, choices: int):
        self.choices = choices
        self.columns: dict[str, Shape] = {}
        self.scope: dict[str, Shape] = {}

    def visit(self, node: nodes.Node | None) -> Shape:
        if node is None:
            return Shape()
        handler = getattr(self, f"visit_{type(node).__name__.lower()}", None)
        if handler is not None:
            shape: Shape = handler(node)
            return shape
        for child in node.iter_child_nodes():
            self.visit(child)
        return Shape()

    def visit_name(self, node: nodes.Name) -> Shape:
        return self.scope.get(node.name) or self.columns.setdefault(node.name, Shape())

    def visit_const(self, node: nodes.Const) -> Shape:
        return Shape(constants=[node.value])

    def visit_assign(self, node: nodes.Assign) -> Shape:
        value = self.visit(node.node)
        if isinstance(node.target, nodes.Name):
            self.scope[node.target.name] = value
        return Shape()

    def visit_for(self, node: nodes.For) -> Shape:
        iterated = self.visit(node.iter)
        if isinstance(node.target, nodes.Name):
            iterated.kinds.add("list")
            self.scope[node.target.name] = iterated.item()
        elif isinstance(node.iter, nodes.Call) and getattr(node.iter.node, "name", "") == "zip":
            for target, argument in zip(node.target.find_all(nodes.Name), node.iter.args, strict=True):
                self.scope[target.name] = self.visit(argument).item()
        else:
            for target in node.target.find_all(nodes.Name):
                self.scope[target.name] = Shape()
        self.scope["loop"] = Shape()
        self.visit(node.test)
        for child in [*node.body, *node.else_]:
            self.visit(child)
        return Shape()

    def visit_getattr(self, node: nodes.Getattr) -> Shape:
        base = self.visit(node.node)
        if node.attr in STRING_METHODS:
            base.kinds.add("str")
            return Shape(cut_from=base.cut_from or base)
        if node.attr in ("items", "keys", "values", "index", "append", "update", "pop"):
            return Shape()
        base.kinds.add("dict")
        return base.key(node.attr)

    def visit_getitem(self, node: nodes.Getitem) -> Shape:
        base, index = self.visit(node.node), self.visit(node.arg)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            base.kinds.add("dict")
            return base.key(node.arg.value)
        if isinstance(node.node, nodes.Dict):
            index.constants += [pair.key.value for pair in node.node.items if isinstance(pair.key, nodes.Const)]
            return Shape()
        if isinstance(node.arg, nodes.Slice):
            base.kinds.add("sequence")
            for bound in (node.arg.start, node.arg.stop):
                self.visit(bound).kinds.add("int")
            return base
        index.kinds.add("int")
        if isinstance(node.node, nodes.List):
            index.below = len(node.node.items)
        elif getattr(node.node, "name", "") == "answer_choices":
            index.below = self.choices
        base.kinds.add("list")
        return base.item()

    def visit_filter(self, node: nodes.Filter) -> Shape:
        base = self.visit(node.node)
        for argument in [*node.args, *(keyword.value for keyword in node.kwargs)]:
            self.visit(argument)
        if node.name in STRING_FILTERS:
            base.kinds.add("str")
        elif node.name in ("round", "abs", "float", "int"):
            base.kinds.add("int")
        elif node.name in ELEMENT_FILTERS:
            base.kinds.add("list")
            return base.item()
        elif node.name in LIST_FILTERS:
            base.kinds.add("list")
            for keyword in node.kwargs:
                if keyword.key == "attribute":
                    assert isinstance(keyword.value, nodes.Const)
                    return Shape(kinds={"list"}, element=base.item().key(keyword.value.value))
            if node.name in ("selectattr", "rejectattr"):
                name = node.args[0]
                assert isinstance(name, nodes.Const)
                base.item().key(name.value)
            return base
        elif node.name == "length":
            base.kinds.add("sequence")
            return Shape()
        return base

    def visit_call(self, node: nodes.Call) -> Shape:
        arguments = [self.visit(argument) for argument in node.args]
        if isinstance(node.node, nodes.Getattr):
            base = self.visit(node.node)
            constants = [argument.value for argument in node.args if isinstance(argument, nodes.Const)]
            if base.cut_from is not None:
                base.cut_from.parts += [str(constant) for constant in constants]
            if node.node.attr == "index" and arguments:
                if isinstance(node.node.node, nodes.List):
                    arguments[0].constants += [
                        item.value for item in node.node.node.items if isinstance(item, nodes.Const)
                    ]
                else:
                    owner = self.visit(node.node.node)
                    owner.kinds.add("list")
                    owner.parts += [str(constant) for constant in constants]
                    arguments[0].elements_of = owner
            return base
        name = getattr(node.node, "name", "")
        if name == "range":
            for argument in arguments:
                argument.kinds.add("int")
        if name == "zip":
            for argument in arguments:
                argument.kinds.add("list")
        return Shape()

    def visit_compare(self, node: nodes.Compare) -> Shape:
        left = self.visit(node.expr)
        for operand in node.ops:
            right = self.visit(operand.expr)
            if isinstance(operand.expr, (nodes.List, nodes.Tuple)):
                left.compared_with([item.value for item in operand.expr.items if isinstance(item, nodes.Const)])
            elif operand.op in ("in", "notin"):
                right.kinds.add("sequence")
                right.parts += [str(constant) for constant in left.constants]
                left.elements_of = right
            else:
                mine, others = list(left.constants), list(right.constants)
                left.compared_with(others)
                right.compared_with(mine)
                if operand.op not in ("eq", "ne"):
                    left.kinds.add("int")
                    right.kinds.add("int")
        return Shape()

    def visit_sub(self, node: nodes.Sub) -> Shape:
        for operand in (node.left, node.right):
            self.visit(operand).kinds.add("int")
        return Shape(kinds={"int"})

    visit_mul = visit_div = visit_mod = visit_sub


def plausible_record(
    source: str, answer_choices: str | None, columns: frozenset[str], rng: random.Random
) -> dict[str, Any]:
    """One record with a value for each of `columns`; another one at every call."""
    environment = jinja2.Environment()
    environment.filters.update(dict.fromkeys(("choice", "most_frequent", "highlight"), str))
    guess = Guess(choices=len((answer_choices or "").split("|||")))
    guess.visit(environment.parse(answer_choices or ""))
    guess.scope.clear()
    guess.visit(environment.parse(source))
    made: dict[int, Any] = {}
    return {name: _value(guess.columns.get(name, Shape()), rng, made) for name in sorted(columns)}


def _pick(options: Any, rng: random.Random) -> Any:
    """As rng.choice, which the tests replace."""
    return options[int(rng.random() * len(options))]


def _value(shape: Shape, rng: random.Random, made: dict[int, Any]) -> Any:
    if id(shape) not in made:
        made[id(shape)] = _new_value(shape, rng, made)
    return made[id(shape)]


def _new_value(shape: Shape, rng: random.Random, made: dict[int, Any]) -> Any:
    if shape.elements_of is not None and rng.random() < 0.9:
        options = _value(shape.elements_of, rng, made)
        if isinstance(options, (list, str)) and options:
            return _pick(options, rng)
    if shape.keys and (shape.element is None or rng.random() < 0.5):
        return {name: _value(child, rng, made) for name, child in shape.keys.items()}
    wants_list = shape.element is not None or "list" in shape.kinds
    if wants_list and not ("str" in shape.kinds and rng.random() < 0.5):
        item = shape.item()
        return [_new_value(item, rng, dict(made)) for _ in range(2 + int(rng.random() * 4))]
    if "sequence" in shape.kinds and not shape.constants and rng.random() < 0.5:
        return [_pick(STRINGS, rng) for _ in range(1 + int(rng.random() * 4))]
    if shape.constants and rng.random() < 0.8:
        return _pick(shape.constants, rng)
    if shape.parts and rng.random() < 0.8:
        pieces = [_pick([*shape.parts, *shape.parts, *STRINGS[:6]], rng) for _ in range(3 + int(rng.random() * 6))]
        return _pick(("", " "), rng).join(pieces)
    if "int" in shape.kinds and "str" not in shape.kinds:
        return int(rng.random() * shape.below)
    return _pick(STRINGS, rng) if rng.random() < 0.9 else int(rng.random() * 3)
