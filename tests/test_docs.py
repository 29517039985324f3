"""The documentation is true: its commands parse, its keys exist, its links lead somewhere, its Python runs."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from t0train.cli.main import app
from t0train.config import RunConfig, locate
from t0train.config.deviations import flatten

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
KEYS = {key for key, *_ in flatten(RunConfig())}


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a Markdown page in one language ("" for those without)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def shell_lines(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        yield from re.findall(r"^#\s+(t0train .*)$", text, flags=re.MULTILINE)
    else:
        for language in ("", "sh", "bash", "console"):
            for block in blocks(text, language):
                yield from block.replace("\\\n", " ").splitlines()


def commands(path: Path) -> list[list[str]]:
    """Every `t0train ...` in the code of a page or in the header of a configuration, as arguments."""
    found = []
    for line in shell_lines(path):
        for part in re.split(r"&&|\|", re.sub(r"\s{2,}\S.*$|\s#.*$", "", line.strip().removeprefix("$ "))):
            if part.strip().startswith("t0train "):
                found.append(shlex.split(part)[1:])
    return found


ALL = [(path, arguments) for path in (*PAGES, *CONFIGS) for arguments in commands(path)]


def test_commands_are_found() -> None:
    assert len(ALL) > 30


@pytest.mark.parametrize(("path", "arguments"), ALL, ids=[f"{path.name}: {' '.join(words)}" for path, words in ALL])
def test_commands_parse(path: Path, arguments: list[str]) -> None:
    command, rest = get_command(app), list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    with command.make_context("t0train", rest) as context:  # parses, runs nothing
        config = context.params.get("config")
        for override in context.params.get("overrides") or []:
            key = override.partition("=")[0]
            assert any(key == known or key.startswith(f"{known}.") for known in KEYS), f"no key {key}"
    if config and not config.isupper() and not config.endswith(".yaml"):
        locate("runs", config)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_keys_exist(path: Path) -> None:
    code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE))
    named = [key for text in code for key in re.findall(r"^((?:mixture|data|model|optimizer|train)\.[a-z_.]+)", text)]
    prefixes = {".".join(key.split(".")[:depth]) for key in KEYS for depth in (1, 2, 3)}
    assert [key for key in named if key not in prefixes] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not link.startswith(("http://", "https://", "#"))]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_exist(path: Path) -> None:
    named = re.findall(r"`((?:t0train|configs|docs|scripts|tests)/[\w./-]*)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_python_page_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    setup = [words for words in commands(ROOT / "docs" / "api.md") if words]
    for words in setup:
        subprocess.run([sys.executable, "-m", "t0train", *words], cwd=tmp_path, check=True, capture_output=True)
    program = "import torch\ntorch.set_num_threads(1)\n" + "\n".join(blocks(text, "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/api/report/report.html").is_file()


FILES = [path for folder in ("t0train", "tests", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
ORIGINALS = {"mesh_tensorflow/optimize.py", "transformer/dataset.py", "promptsource/templates.py", "templates.py"}
ORIGINALS |= {"seqio_tasks/utils.py"}
"""Files of other projects, which comments cite as their source."""


def _mentions() -> list[tuple[str, str]]:
    """Every `t0train.…` and `….py` in backticks: of the pages, and of all docstrings and comments."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    pattern = re.compile(r"`+((?:t0train|tests)\.[\w.]+\w|[\w/.-]+\.py)(?:\(\))?`+")
    return [
        (str(path.relative_to(ROOT)), name)
        for path in (*pages, *FILES)
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    ]


def _exists(name: str) -> bool:
    if name.endswith(".py"):
        return any(path.as_posix().endswith(f"/{name}") for path in FILES)
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_names_that_are_mentioned_exist() -> None:
    mentions = _mentions()
    assert len(mentions) > 30, "the pattern finds them"
    assert sorted({(where, name) for where, name in mentions if name not in ORIGINALS and not _exists(name)}) == []
