r"""References from one key of a configuration to another: `${name}`, and nothing else. `\${` is a plain `${`.

There are no resolvers: a file from a stranger must not read environment variables, or call anything, by being loaded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from t0train.config.paths import Located, escape, path_keys
from t0train.config.tree import Scalar, Tree
from t0train.config.typed import branches, dotted_keys, model_of
from t0train.core.errors import nearest

_REFERENCE = re.compile(r"(\\?)\$\{([^{}$\\]*)(\}?)")
_KEY = re.compile(r"[A-Za-z_]\w*(\.[^.\s:,]+)*")
_LONGEST = 10_000  # characters
_DEEPEST = 20


def interpolate(model: type[BaseModel], tree: Tree) -> Tree:
    """Every reference replaced by what it refers to: another single value, or its default.

    Raises:
        ValueError: anything but a key in the braces, no such key, a section or list, keys that refer to each other.
    """
    return _Interpolation(model, tree).of(tree, ())


def escape_reference(text: str) -> str:
    """A text as a file must spell it, such that it is not taken for a reference."""
    return text.replace("${", "\\${")


class _Interpolation:
    def __init__(self, model: type[BaseModel], root: Tree) -> None:
        self.model = model
        self.root = root
        self.paths = path_keys(model)
        self.found: dict[str, Scalar] = {}

    def of(self, tree: Tree, above: tuple[str, ...]) -> Tree:
        """The tree without references; `above` are the keys that refer to it."""
        if isinstance(tree, dict):
            return {key: self.of(value, above) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.of(item, above) for item in tree]
        return self._scalar(tree, above)

    def _scalar(self, scalar: Scalar, above: tuple[str, ...]) -> Scalar:
        if "${" not in scalar.text:
            return scalar
        whole = _REFERENCE.fullmatch(scalar.text)
        if whole and not whole[1]:
            return self._target(whole, scalar.text, above)
        text = _REFERENCE.sub(
            lambda found: found[0][1:] if found[1] else self._target(found, scalar.text, above).text, scalar.text
        )
        if len(text) > _LONGEST:
            raise ValueError(f"{scalar.text[:80]!r} has more than {_LONGEST:,} characters with what it refers to.")
        return replace(scalar, text=text, quoted=True)

    def _target(self, found: re.Match[str], text: str, above: tuple[str, ...]) -> Scalar:
        key = found[2]
        if not found[3] or not _KEY.fullmatch(key):
            raise ValueError(
                f"{text[:80]!r} holds a reference that is not understood: only ${{key}} with the dotted name of "
                "another key is. Nothing is called or calculated; in paths, $VAR is an environment variable; "
                "\\${ is a plain ${."
            )
        if key in above:
            raise ValueError(f"{' -> '.join((*above, key))}: these keys refer to each other in a circle.")
        if len(above) >= _DEEPEST:
            raise ValueError(f"{' -> '.join(above[:3])} -> ...: references go more than {_DEEPEST} deep.")
        if key not in self.found:
            target = self._scalar(self._look_up(key, text), (*above, key))
            self.found[key] = self._absolute(key, target)
        return self.found[key]

    def _look_up(self, key: str, text: str) -> Scalar:
        tree: Any = self.root
        annotation: Any = self.model
        default: Any = None
        for part in key.split("."):
            model = model_of(branches(annotation))
            field = model.model_fields.get(part) if model else None
            tree = tree.get(part) if isinstance(tree, dict) else None
            annotation = field.annotation if field else None
            default = field.default if field else None
        if tree is None and isinstance(default, str | int | float) and default is not PydanticUndefined:
            tree = Scalar(str(default), isinstance(default, str), Path.cwd())
        if tree is None:
            hint = f"; in paths, ${key} is the environment variable" if key.isidentifier() else ""
            known = nearest(key, dotted_keys(self.model))
            raise ValueError(f"{text[:80]!r} refers to {key}, which is no key with a value{hint}. {known}")
        if not isinstance(tree, Scalar):
            raise ValueError(f"{text[:80]!r} refers to {key}, which is no single value.")
        return tree

    def _absolute(self, key: str, target: Scalar) -> Scalar:
        """A path as it will be, as it may be relative to another folder than the text that refers to it."""
        if key not in self.paths:
            return target
        if not target.text:
            raise ValueError(f"a path refers to {key}, which is empty.")
        return replace(target, text=escape(self.paths[key].resolve(Located(target.text, target.folder))), quoted=True)
