"""Which keys of the configuration a piece of code reads: attributes of expressions that are known to be a section.

A small inference of types over the syntax tree. It knows annotations (of parameters, variables, attributes of classes
and results of functions, each by its name), assignments, and what is iterated over.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from t0train.config.values import branches, model_of

Section = type[BaseModel]


def reads(sources: Iterable[str], root: Section, *more: Section) -> set[tuple[str, str]]:
    """Pairs of a section's class name and a key of it that some of the sources read.

    Args:
        sources: texts of Python modules.
        root: the model whose sections are looked for.
        more: models that are no sections of it, e.g. base classes.
    """
    trees = [ast.parse(source) for source in sources]
    sections = {section.__name__: section for top in (root, *more) for section in _sections(top)}
    finder = _Finder(sections)
    for tree in trees:
        finder.learn_names(tree)
    for tree in trees:
        finder.visit_block(tree, {})
    return finder.found


def unread_keys(model: Section, found: set[tuple[str, str]], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model that are not among `found`. What a base class's key is read as, counts."""
    for name, field in model.model_fields.items():
        inner = model_of(branches(field.annotation))
        if inner:
            yield from unread_keys(inner, found, f"{prefix}{name}.")
        elif not any((base.__name__, name) in found for base in model.__mro__):
            yield prefix + name


def _sections(model: Section) -> Iterator[Section]:
    yield model
    for field in model.model_fields.values():
        if inner := model_of(branches(field.annotation)):
            yield from _sections(inner)


class _Finder:
    def __init__(self, sections: dict[str, Section]) -> None:
        self.sections = sections
        self.attributes: dict[str, set[Section]] = {}  # of classes that are no sections, e.g. `Run.config`
        self.results: dict[str, set[Section]] = {}  # of functions
        self.found: set[tuple[str, str]] = set()

    def learn_names(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        self.attributes.setdefault(line.target.id, set()).update(self.named(line.annotation))
            if isinstance(node, ast.FunctionDef):
                self.results.setdefault(node.name, set()).update(self.named(node.returns))

    def named(self, annotation: ast.AST | None) -> set[Section]:
        """The sections that an annotation names, also within a container."""
        nodes = ast.walk(annotation) if annotation else ()
        return {self.sections[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in self.sections}

    def visit_block(self, node: ast.AST, known: dict[str, set[Section]]) -> None:
        """Go through a module, class or function; inner ones see the outer one's names."""
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            known = dict(known)
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if argument.arg != "self":
                    known[argument.arg] = self.named(argument.annotation)
        if isinstance(node, ast.ClassDef) and node.name in self.sections:  # properties use keys, validators check them
            known = {**known, "self": {self.sections[node.name]}}
            node = ast.Module([line for line in node.body if _is_property(line)], [])
        children = list(ast.iter_child_nodes(node))
        for child in sorted(children, key=lambda child: not isinstance(child, ast.comprehension)):  # bind, then use
            for target, value in _bindings(child):
                known.setdefault(target, set()).update(self.kinds(value, known))
            self.kinds(child, known)
            self.visit_block(child, known)

    def kinds(self, node: ast.AST, known: dict[str, set[Section]]) -> set[Section]:
        """The sections that an expression may be; notes what it reads."""
        if isinstance(node, ast.Name):
            return known.get(node.id, set())
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            return self.results.get(name, set())
        if isinstance(node, ast.Subscript | ast.Starred):
            return self.kinds(node.value, known)
        if not isinstance(node, ast.Attribute):
            return set()
        owners = self.kinds(node.value, known)
        kinds: set[Section] = set()
        for owner in owners:
            if field := owner.model_fields.get(node.attr):
                self.found.add((owner.__name__, node.attr))
                kinds |= {inner} if (inner := model_of(branches(field.annotation))) else set()
        return kinds if owners else self.attributes.get(node.attr, set())


def _is_property(node: ast.AST) -> bool:
    names = [getattr(decorator, "id", "") for decorator in getattr(node, "decorator_list", ())]
    return isinstance(node, ast.FunctionDef) and names == ["property"]


def _bindings(node: ast.AST) -> list[tuple[str, Any]]:
    """Names that a statement or a comprehension gives to (parts of) an expression."""
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value:
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.For | ast.comprehension):
        pairs = [(node.target, node.iter)]
    else:
        return []
    found = []
    for target, value in pairs:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            each = zip(target.elts, value.elts, strict=False)
            found += [(name.id, part) for name, part in each if isinstance(name, ast.Name)]
        elif isinstance(target, ast.Name):
            found.append((target.id, value))
    return found
