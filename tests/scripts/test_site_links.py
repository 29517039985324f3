"""Links that are written for the forge lead to the same place on the documentation site."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site_markdown() -> Callable[[str, str], tuple[str, set[str]]]:
    specification = importlib.util.spec_from_file_location("site_links", ROOT / "scripts" / "site_links.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found: Callable[[str, str], tuple[str, set[str]]] = module.site_markdown
    return found


@pytest.mark.parametrize(
    ("page", "written", "expected", "files"),
    [
        ("README.md", "[data](docs/data.md)", "[data](data.md)", set()),
        ("README.md", "[data](docs/data.md#order)", "[data](data.md#order)", set()),
        ("README.md", "[help](CONTRIBUTING.md)", "[help](contributing.md)", set()),
        ("README.md", "[cite](CITATION.cff)", "[cite](CITATION.cff)", {"CITATION.cff"}),
        ("README.md", "in [configs/runs/](configs/runs/).", "in configs/runs/.", set()),
        ("docs/data.md", "[start](../README.md)", "[start](index.md)", set()),
        ("docs/data.md", "[`a` and b](packing.md)", "[`a` and b](packing.md)", set()),
        ("docs/data.md", "[CI](../.ci/run)", "[CI](.ci/run)", {".ci/run"}),
        ("docs/data.md", "[x](https://example.org/docs/a.md)", "[x](https://example.org/docs/a.md)", set()),
        ("docs/data.md", "[above](#order)", "[above](#order)", set()),
        ("docs/data.md", "`[a](../README.md)`", "`[a](../README.md)`", set()),
        ("docs/data.md", "```\n[a](../README.md)\n```\n", "```\n[a](../README.md)\n```\n", set()),
        (
            "README.md",
            "[![licence](https://example.org/a.svg)](LICENSE) [![docs](https://example.org/b.svg)](docs/data.md)",
            "[![licence](https://example.org/a.svg)](LICENSE) [![docs](https://example.org/b.svg)](data.md)",
            {"LICENSE"},
        ),
    ],
)
def test_links_of_the_forge_become_links_of_the_site(
    site_markdown: Callable[[str, str], tuple[str, set[str]]], page: str, written: str, expected: str, files: set[str]
) -> None:
    assert site_markdown(written, page) == (expected, files)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "text", "found"),
    [
        ("docs/packing.md", "[x](nowhere.md)", "nowhere.md"),
        ("docs/packing.md", "[x](data.md#no-such-heading)", "no-such-heading"),
        ("README.md", "[x](docs/nowhere.md)", "nowhere.md"),
        ("docs/new.md", "# New", "new.md"),
    ],
    ids=["link", "anchor", "link of the root", "page outside of the navigation"],
)
def test_the_strict_build_finds(page: str, text: str, found: str, tmp_path: Path) -> None:
    for name in ("docs", "scripts", "containers", ".github", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    (tmp_path / "docs" / "api-reference.md").write_text("# API reference\n")  # the docstrings take longest
    with (tmp_path / page).open("a") as stream:
        stream.write(f"\n{text}\n")
    build = next(
        line for line in (ROOT / "scripts/docs.sh").read_text().splitlines() if line.startswith("mkdocs build")
    )
    command = [sys.executable, "-m", *build.partition(" #")[0].split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert found in done.stderr
