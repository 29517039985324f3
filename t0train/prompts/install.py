"""Getting promptsource's template collection: its sdist from the package index, checked, unpacked into the cache.

promptsource 0.2.3 refuses Python >= 3.10 and pins packages of 2021, so it cannot be a dependency. Its templates are
data and need none of that: pip downloads the source archive (index, proxy and certificates are pip's configuration),
and only the `templates.yaml` files are taken out of it. The archive is kept next to them, for comparisons.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from t0train.core.console import say
from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import atomic_folder, cache_folder, file_state, remove_leftovers, work_folder
from t0train.core.hashing import file_sha256
from t0train.core.lock import hold_folder

VERSION = "0.2.3"
SDIST = f"promptsource-{VERSION}.tar.gz"
SDIST_SHA256 = "f106c889778a0fe5590e7183904bf964e1a01691c8a29451e44f3df5ddef05f5"

_MEMBER = re.compile(rf"promptsource-{re.escape(VERSION)}/promptsource/templates/((?:[^/]+/)+templates\.yaml)")


def collection_folder() -> Path:
    """Where `install` keeps the sdist and, below `templates/`, the collection."""
    return cache_folder() / f"promptsource-{VERSION}"


def install(from_file: Path | None = None) -> Path:
    """Install the template collection into the user's cache; does nothing when it is already there, unchanged.

    A collection of which a file is missing or changed is restored from the sdist next to it, without a network. Of two
    processes that install at once one waits for the other.

    Args:
        from_file: promptsource's sdist, fetched by other means (a machine without network). Default: pip downloads it.

    Returns:
        The folder of the templates, laid out `<dataset>/[<subset>/]templates.yaml`.

    Raises:
        UserError: no network or no pip, a file that is not the 0.2.3 sdist, or a cache that cannot be written.
    """
    if from_file is not None:
        _check_sdist(from_file)
    folder = collection_folder()
    with hold_folder(folder.parent, "installing promptsource's templates", say):
        remove_leftovers(folder.parent)
        if not _is_whole(folder):
            if from_file is not None:
                _unpack(from_file, folder)
            elif _is_sdist(folder / SDIST):
                _unpack(folder / SDIST, folder)
            else:
                _install_by_pip(folder)
    return folder / "templates"


def check_installed(path: Path) -> None:
    """Refuse a template file of the installed collection that is not as promptsource published it.

    Raises:
        UserError: the file is not the sdist's, or there is no sdist to compare it with.
    """
    folder = collection_folder()
    if not path.is_relative_to(folder / "templates"):
        return
    sdist = folder / SDIST
    mend = "Run `t0train prompts install` to restore it; templates of your own belong in a folder of data.templates."
    if not sdist.is_file():
        raise UserError(f"{path} cannot be compared with {sdist}, which is missing. {mend}")
    expected = _published(sdist, file_state(sdist)).get(path.relative_to(folder / "templates").as_posix())
    if expected is None:
        raise UserError(f"{path} is not part of promptsource {VERSION}, but lies in its folder. {mend}")
    with explain_os_errors("read", path):
        found = file_sha256(path)
    if found != expected:
        raise UserError(
            f"{path} was changed since it was installed: its sha256 is {found[:12]}..., in promptsource {VERSION}"
            f" {expected[:12]}.... {mend}"
        )


@lru_cache(maxsize=1)
def _published(sdist: Path, state: tuple[int, int, int, int]) -> dict[str, str]:
    """SHA-256 of each template file in the sdist, by its path below `templates/`. `state` is part of the key only."""
    _check_sdist(sdist)
    return {path: hashlib.sha256(content).hexdigest() for path, content in _template_files(sdist)}


def _install_by_pip(folder: Path) -> None:
    """Fetch the sdist in a folder next to `folder`, where what a killed process leaves is found, and unpack it."""
    with explain_os_errors("write", folder):
        place = work_folder(folder, ".tmp")
    try:
        sdist = _download(place)
        _check_sdist(sdist)
        _unpack(sdist, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _download(folder: Path) -> Path:
    """Have pip fetch the sdist. pip compares its hash first, then runs its build script for the metadata."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"promptsource=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
    options = ["--no-deps", "--ignore-requires-python", "--no-binary", "promptsource", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirements)]
    variables = {**os.environ, "TMPDIR": str(folder)}  # pip's own temporary files vanish with ours
    result = subprocess.run(command, capture_output=True, text=True, env=variables)  # noqa: S603 (a list, no shell)
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise UserError(
            f"pip could not fetch promptsource {VERSION} (it needs a package index: network, proxy, or a mirror in"
            f" pip's configuration). pip said: {' / '.join(lines[-3:])}\n"
            f"Without network: get {SDIST} on another machine and run `t0train prompts install --from {SDIST}`."
        )
    return folder / SDIST


def _is_sdist(path: Path) -> bool:
    """Whether it is promptsource's sdist, byte by byte."""
    return path.is_file() and file_sha256(path) == SDIST_SHA256


def _check_sdist(sdist: Path) -> None:
    if not sdist.is_file():
        raise UserError(f"no file {sdist}: promptsource's source archive {SDIST} is expected there.")
    with explain_os_errors("read", sdist):
        found = file_sha256(sdist)
    if found != SDIST_SHA256:
        raise UserError(
            f"{sdist} is not promptsource's {SDIST}: its sha256 is {found}, expected {SDIST_SHA256}. Fetch it"
            f" again: pip download --no-deps --ignore-requires-python --no-binary promptsource promptsource=={VERSION}"
        )


def _unpack(sdist: Path, folder: Path) -> None:
    """Put the sdist with its templates, and nothing else of it, into `folder`, atomically."""
    with atomic_folder(folder, ours=[SDIST, "templates"]) as temporary:
        shutil.copyfile(sdist, temporary / SDIST)
        for path, content in _template_files(sdist):
            target = temporary / "templates" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _template_files(sdist: Path) -> Iterator[tuple[str, bytes]]:
    """Path below `templates/` and content of each template file of the archive; links, `..` and others are left out."""
    with explain_os_errors("read", sdist), tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            match = _MEMBER.fullmatch(member.name)
            if match is None or not member.isfile() or ".." in member.name.split("/"):
                continue
            if (content := archive.extractfile(member)) is not None:
                yield match.group(1), content.read()


def _is_whole(folder: Path) -> bool:
    """Whether an earlier `install` left the right archive and exactly its templates here."""
    sdist = folder / SDIST
    if not _is_sdist(sdist):
        return False
    templates = folder / "templates"
    found = {path.relative_to(templates).as_posix(): path for path in templates.rglob("*") if not path.is_dir()}
    published = _published(sdist, file_state(sdist))
    return found.keys() == published.keys() and all(
        path.is_file() and file_sha256(path) == published[name] for name, path in found.items()
    )
