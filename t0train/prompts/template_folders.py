"""Collections of templates: where they lie and which datasets they know.

Layout of a collection: `<folder>/<dataset>/[<subset>/]templates.yaml`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from t0train.core.errors import UserError, nearest
from t0train.core.files import file_state
from t0train.prompts.file import read_templates
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
