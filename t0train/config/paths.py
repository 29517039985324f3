"""The one type of a path in a configuration: `~` and `$VAR` expanded, relative to the file that names it, absolute."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_VARIABLE = re.compile(r"(\\?)\$([A-Za-z_][A-Za-z0-9_]*)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes, of Linux and macOS


class Located(str):
    """A text of a configuration file, with the folder that a relative path in it refers to."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        """`text`, written in a file in `folder`."""
        self = super().__new__(cls, text)
        self.folder = folder
        return self


@dataclass(frozen=True)
class ConfigPath:
    """Marks a key as a path: `Annotated[str, ConfigPath()]`. Its value is resolved once, when it is validated.

    Attributes:
        words: values that are no paths, e.g. `hub`.
        other: what a value may be instead of a path: the name of a file in configs/, or the id of a model on the hub.
    """

    words: tuple[str, ...] = ()
    other: Literal["", "name", "hub id"] = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Resolve before the text itself is validated."""
        return core_schema.no_info_before_validator_function(self.resolve, handler(source))

    def resolve(self, value: Any) -> Any:
        """The absolute path that a text means; whatever is no path comes back as it is.

        A text that is not `Located` comes from the command line or from Python: relative to the working directory.

        Raises:
            ValueError: an environment variable that is not set, an unknown user, or control characters.
        """
        if not isinstance(value, str) or not value or value in self.words:
            return value
        folder = value.folder if isinstance(value, Located) else Path.cwd()
        if self.other and not value.startswith((".", "/", "~", "$", "\\$")) and self._is_other(value, folder):
            return str(value)
        return _absolute(expand(value), folder)

    def _is_other(self, value: str, folder: Path) -> bool:
        if self.other == "name":
            return not ("/" in value or value.endswith((".yaml", ".yml")) or os.path.isfile(folder / value))
        is_id = _HUB_ID.fullmatch(value) and not value.endswith(".model")
        return bool(is_id) and not os.path.exists(folder / value)


def expand(text: str) -> str:
    r"""Replace a leading `~` and every `$VAR`; `\$` is a dollar sign, and so is one that no name follows (`run$1`).

    `$PWD` is the working directory of this process, whatever the shell that started it has exported.

    Raises:
        ValueError: a variable that is not set, or a user that does not exist.
    """
    variables = {**os.environ, "PWD": os.getcwd()}

    def replace(found: re.Match[str]) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${name}"
        if name not in variables:
            raise ValueError(
                f"The environment variable {name} is not set; set it, or write \\${name} for a name that has a "
                "dollar sign"
            )
        return variables[name]

    home, slash, rest = text.partition("/")
    if home.startswith("~"):
        expanded = os.path.expanduser(home)
        if expanded == home:
            raise ValueError(f"There is no user {home[1:]!r}; for a name that begins with ~ write ./{home}")
        return expanded + slash + _VARIABLE.sub(replace, rest)
    return _VARIABLE.sub(replace, text)


def escape(path: str) -> str:
    """A path as a configuration file must spell it, such that `expand` gives it back."""
    return _VARIABLE.sub(lambda found: f"\\{found.group()}", path)


def _absolute(text: str, folder: Path) -> str:
    if not text.isprintable():
        raise ValueError("A path holds no line breaks, tabs or other control characters")
    path = str(folder.absolute() / text)
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(
            f"A path has at most {_LONGEST_PATH:,} bytes, and each of its names at most {_LONGEST_NAME}; choose a "
            "shorter one"
        )
    short = os.path.normpath(path)  # wrong where `..` follows a link to a folder
    return short if os.path.realpath(short) == os.path.realpath(path) else path
