"""Collections of templates: where they lie, which datasets they know, and how a `templates.yaml` is read.

Layout of a collection: `<folder>/<dataset>/[<subset>/]templates.yaml`, in promptsource's format. Such a file comes
from somebody else: it is checked key by key, its two tags are read without running anything, and its size, its depth
and what its aliases repeat are limited before anything is built.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from t0train.core.errors import UserError, explain_os_errors, nearest
from t0train.core.files import file_state
from t0train.core.text import read_text
from t0train.prompts.install import check_installed, collection_folder
from t0train.prompts.template import Template

FILE_NAME = "templates.yaml"
FOLDER_VARIABLE = "T0TRAIN_TEMPLATES"
# promptsource's list: top-level folders that are hub users with datasets in them, not datasets with subsets.
USERS = ("Zaid", "craffel")


def template_folder() -> Path | None:
    """The promptsource collection: `$T0TRAIN_TEMPLATES`, else what `install` fetched, else an installed promptsource.

    Raises:
        UserError: `$T0TRAIN_TEMPLATES` names no folder.
    """
    if explicit := os.environ.get(FOLDER_VARIABLE):
        folder = Path(explicit).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"${FOLDER_VARIABLE} is {explicit}, which is no folder; unset it or name one with templates."
            )
        return folder
    candidates = [collection_folder() / "templates"]
    package = importlib.util.find_spec("promptsource")  # finds it without importing it
    if package is not None:
        candidates += [Path(location) / "templates" for location in package.submodule_search_locations or ()]
    return next((folder for folder in candidates if folder.is_dir()), None)


def load_templates(dataset: str, subset: str | None = None, folders: Sequence[Path] = ()) -> dict[str, Template]:
    """All templates of a dataset, by name, in the order of their names.

    Args:
        dataset: e.g. "glue"; a dataset of a hub user is "user/name".
        subset: e.g. "mrpc"; None or "" for a dataset without configurations.
        folders: roots of collections to search before promptsource's; the first that knows the dataset wins.

    Raises:
        UserError: no templates for this dataset, no collection installed, or a file that is not in the format.
    """
    parts = [*dataset.split("/"), *([subset] if subset else [])]
    if not all(parts) or any(part in (".", "..") for part in parts):
        raise UserError(
            f"{dataset!r} with subset {subset!r} names no dataset; expected e.g. 'imdb' or 'glue' and 'mrpc'."
        )
    roots = _roots(folders)
    for root in roots:
        if (path := root.joinpath(*parts, FILE_NAME)).is_file():
            return dict(_read(path, dataset, subset or "", file_state(path)))
    if not roots:
        raise UserError("promptsource's templates are not installed. Run: t0train prompts install")
    known = ["/".join(filter(None, key)) for key in list_datasets(folders)]
    hint = "" if template_folder() else " promptsource's templates are not installed; run: t0train prompts install"
    raise UserError(f"no templates for {'/'.join(parts)!r}: {nearest('/'.join(parts), known)}{hint}")


def list_datasets(folders: Sequence[Path] = ()) -> list[tuple[str, str]]:
    """(dataset, subset) of everything that has templates, sorted; subset is "" where there is none."""
    found = set()
    for root in _roots(folders):
        for path in root.glob(f"*/**/{FILE_NAME}"):
            parts = path.parent.relative_to(root).parts
            depth = 2 if len(parts) > 2 or parts[0] in USERS else 1
            found.add(("/".join(parts[:depth]), "/".join(parts[depth:])))
    return sorted(found)


def _roots(folders: Sequence[Path]) -> list[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no template folder {folder}; expected <folder>/<dataset>/[<subset>/]{FILE_NAME}.")
    collection = template_folder()
    return [*folders, *([collection] if collection else [])]


@lru_cache(maxsize=512)
def _read(path: Path, dataset: str, subset: str, state: tuple[int, int, int, int]) -> dict[str, Template]:
    """Templates of one file. `state` is part of the cache's key only: an edited file is read again."""
    check_installed(path)
    return {template.name: template for template in sorted(read_templates(path, dataset, subset), key=_name)}


def _name(template: Template) -> str:
    return template.name


MOST_BYTES = 4_000_000  # of a file; the largest of promptsource's has 17 thousand
MOST_DEPTH = 20  # mappings and lists within each other; promptsource's have 5
MOST_NODES = 500_000  # values, those that aliases repeat counted each time

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is ten times as fast


class _Loader(_Base):
    """A safe loader that takes promptsource's two tags for plain mappings; any other tag is an error."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!Template", _mapping)
_Loader.add_constructor("!TemplateMetadata", _mapping)


def read_templates(path: Path, dataset: str, subset: str) -> list[Template]:
    """The templates of a file, in its order.

    Raises:
        UserError: unreadable, not YAML, too large or too deep, a key or an identifier that occurs twice, a value
            of the wrong type, two templates of one name.
    """
    with explain_os_errors("read", path):
        size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{path} has {size:,} bytes; a file of templates may have {MOST_BYTES:,}. Split it.")
    try:
        content = _load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date with a 13th month, a number of 5,000 digits
        raise UserError(f"{path} is not YAML that promptsource would write: {error}") from error
    entries = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        found = "no key `templates`" if isinstance(content, dict) and "templates" not in content else _kind(content)
        if isinstance(content, dict) and "templates" in content:
            found = f"`templates`, which is {_kind(content['templates'])}"
        raise UserError(
            f"{path} is not in promptsource's format: it holds {found}; expected a mapping `templates` of"
            " identifier -> !Template with `name`, `jinja`, `answer_choices`, `metadata`."
        )
    templates = [_template(f"{path}: template {uid!r}", dataset, subset, str(uid), entries[uid]) for uid in entries]
    _refuse_twice(path, "name", [template.name for template in templates])
    _refuse_twice(path, "identifier", [template.uid for template in templates])
    _refuse_twice(path, "`id`", [str(entry["id"]) for entry in entries.values() if entry.get("id") is not None])
    return templates


def _load(text: str) -> Any:
    """The content of the file: its depth is checked on the flat list of events, as the parser itself would overflow."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise yaml.YAMLError(f"line {line}: more than {MOST_DEPTH} mappings and lists within each other.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(loader, node, {}, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(loader: _Loader, node: yaml.Node, sizes: dict[int, int], open_nodes: set[int]) -> int:
    """How many values a node holds, those that aliases repeat counted each time; refuses a key twice on the way."""
    if id(node) in open_nodes:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias repeats the value that contains it.")
    if (known := sizes.get(id(node))) is not None:
        return known
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
        _refuse_keys_twice(loader, node)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    open_nodes.add(id(node))
    size = 1 + sum(_count(loader, child, sizes, open_nodes) for child in children)
    open_nodes.remove(id(node))
    if size > MOST_NODES:
        line = node.start_mark.line + 1
        raise yaml.YAMLError(f"line {line}: its aliases repeat values until there are more than {MOST_NODES:,}.")
    sizes[id(node)] = size
    return size


def _refuse_keys_twice(loader: _Loader, node: yaml.MappingNode) -> None:
    """YAML's own loader lets the last of two equal keys win; keys that are no scalars are refused when it builds."""
    first: dict[Any, int] = {}
    for key_node, _ in node.value:
        if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
            key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
            if key in first:
                raise yaml.YAMLError(
                    f"line {line}: the key {key_node.value!r} occurs twice, first on line {first[key]}; the first"
                    " would be lost. Rename or remove one."
                )
            first[key] = line


def _refuse_twice(path: Path, what: str, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, twice))
        raise UserError(f"{path} has several templates of one {what}: {listed}; rename all but one.")


def _template(where: str, dataset: str, subset: str, uid: str, entry: Any) -> Template:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {_kind(entry)}; expected a mapping with `name`, `jinja`, `answer_choices`.")
    metadata = _value(where, entry, "metadata", dict, "a mapping", {})
    metrics = _value(where, metadata, "metrics", list, "a list of names, e.g. [Accuracy]", [])
    if wrong := next((metric for metric in metrics if not isinstance(metric, str)), None):
        raise UserError(f"{where}: `metrics` holds {_kind(wrong)}; expected names, e.g. [Accuracy].")
    for key in ("name", "jinja"):
        if entry.get(key) is None:
            raise UserError(f"{where} has no `{key}`; expected a text.")
    name: str = _value(where, entry, "name", str, "a text")
    if not name.strip():
        raise UserError(f"{where}: `name` is empty; a template needs one.")
    return Template(
        dataset=dataset,
        subset=subset,
        name=name,
        uid=uid,
        jinja=_value(where, entry, "jinja", str, "a text"),
        answer_choices=_value(where, entry, "answer_choices", str, "one text, e.g. 'no ||| yes'") or None,
        original_task=bool(_value(where, metadata, "original_task", bool, "true or false")),
        choices_in_prompt=_value(where, metadata, "choices_in_prompt", bool, "true or false"),
        metrics=tuple(metrics),
    )


def _value(where: str, entry: dict[Any, Any], key: str, kind: type, expected: str, default: Any = None) -> Any:
    """The value of a key, of the given type; `default` if it is null or not there."""
    value = entry.get(key)
    if value is None:
        return default
    if isinstance(value, kind):
        return value
    hint = ""
    if kind is str and isinstance(value, list):
        hint = " Join them: 'no ||| yes'."
    elif kind is str:
        hint = " Put it in quotes: YAML takes yes, no, on, off, 1, 1.5 and dates for values of other types."
    raise UserError(f"{where}: `{key}` is {_kind(value)}; expected {expected}.{hint}")


def _kind(value: Any) -> str:
    """What a value is, for a message; a value that may be large is not printed."""
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"the text {value[:40]!r}" if isinstance(value, str) else f"{str(value)[:40]} ({type(value).__name__})"
