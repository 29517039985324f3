"""The house rules that a reader cannot see in one file: who imports whom, what starts without torch, module sizes."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from typer.main import get_command

from t0train.cli.main import app

PACKAGE = Path(__file__).resolve().parents[1] / "t0train"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "config": {"core"},
    "prompts": {"core", "config"},
    "tasks": {"core", "config", "prompts"},
    "results": {"core", "config"},
    "mixture": {"core", "config", "prompts", "tasks", "results"},
    "data": {"core", "config", "prompts", "tasks", "mixture"},
    "checkpoint": {"core", "config"},
    "model": {"core", "config", "data", "checkpoint"},
    "optim": {"core", "config"},
    "estimate": {"core", "config"},
    "distributed": {"core", "config", "data", "model", "optim"},
    "training": {
        "core",
        "config",
        "prompts",
        "tasks",
        "mixture",
        "data",
        "model",
        "optim",
        "distributed",
        "estimate",
        "checkpoint",
    },
    "evals": {"core", "config", "prompts", "tasks", "mixture", "data", "checkpoint", "model", "results"},
    "report": {"core", "config", "results"},
    "toy": {"core", "prompts"},  # prompts: the vocabulary is trained on rendered text
}
"""For each package, the packages that its modules may import, inside functions too. The command line may import all."""

NO_TORCH = {"core", "config", "prompts", "tasks", "mixture", "data", "results", "report", "toy", "estimate"}
TORCH = {
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "t0train.checkpoint",
    "t0train.model",
    "t0train.optim",
    "t0train.distributed",
    "t0train.training",
}
LAZY = {
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "transformers",
    "accelerate",
    "sacrebleu",
    "rouge_score",
}
"""Libraries that are slow to import: only inside the functions that need them."""


def package_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a module imports; with `everywhere` also those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else _at_import(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_import(node)


def test_every_package_is_known() -> None:
    packages = {package_of(path) for path in MODULES} - {"", "cli", "_configs"}
    assert packages <= set(MAY_IMPORT), "say in MAY_IMPORT what the new package may import"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_imports_go_one_way(name: str) -> None:
    allowed = MAY_IMPORT[name] | {name}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {found}"
        for path in MODULES
        if package_of(path) == name
        for found in imports(path)
        if found.startswith("t0train.") and found.split(".")[1] not in allowed | {"__version__"}
    ]
    assert wrong == []


def test_no_import_circle() -> None:
    """Of modules, counting imports inside functions and for types."""
    names = {}
    for path in MODULES:
        parts = ["t0train", *path.relative_to(PACKAGE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in names.items():
        found = {dotted if dotted in names else dotted.rpartition(".")[0] for dotted in imports(path)}
        graph[name] = (found & names.keys()) - {name}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_file_name_stands_twice() -> None:
    """So that a name in an editor's list of files, a traceback or a question means one module."""
    names = Counter(path.name for path in MODULES if path.name not in ("__init__.py", "__main__.py"))
    assert [name for name, number in names.items() if number > 1] == []


def test_no_class_name_stands_twice() -> None:
    """For the same reason: `Table` is one class, whoever speaks of it."""
    trees = (ast.parse(path.read_text()) for path in MODULES)
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, number in names.items() if number > 1] == []


def test_packages_without_torch_name_it_nowhere() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {found}"
        for path in MODULES
        if package_of(path) in NO_TORCH
        for found in imports(path)
        if any(found == name or found.startswith(f"{name}.") for name in TORCH)
    ]
    assert wrong == []


@pytest.mark.slow
def test_slow_libraries_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {found}"
        for path in MODULES
        for found in imports(path, everywhere=False)
        if found.split(".")[0] in LAZY
    ]
    assert wrong == []


def test_the_check_sees_imports_inside_functions_and_skips_typing_ones(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import matplotlib\n"
        "try:\n    import datasets\nexcept ImportError:\n    pass\n"
        "class A:\n    def f(self):\n        from torch import nn\n"
    )
    assert set(imports(module)) == {"typing.TYPE_CHECKING", "matplotlib", "datasets", "torch.nn"}
    assert set(imports(module, everywhere=False)) == {"typing.TYPE_CHECKING", "datasets"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]
LIGHT = [
    ["--help"],
    ["config", "show", "t0"],
    ["mixture", "list"],
    ["estimate", "t0_3b"],
    *([name, "--help"] for name in COMMANDS),
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_start_without_heavy_libraries(arguments: list[str]) -> None:
    """Runs the command itself in a fresh interpreter and looks at what it has imported at the end."""
    program = (
        "import json, sys\n"
        "sys.argv, heavy = ['t0train', *json.loads(sys.argv[1])], json.loads(sys.argv[2])\n"
        "from t0train.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        "print('LOADED', sorted(set(heavy) & set(sys.modules)))\n"
    )
    heavy = [*LAZY, "torch", "pandas", "scipy"]
    command = [sys.executable, "-c", program, json.dumps(arguments), json.dumps(heavy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_package_is_typed_and_installed_from_here() -> None:
    found = importlib.util.find_spec("t0train")
    assert found is not None
    assert found.origin is not None
    assert Path(found.origin).parent == PACKAGE
    assert (PACKAGE / "py.typed").is_file()
