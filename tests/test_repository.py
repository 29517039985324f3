"""What surrounds the package holds together: workflows, forms, containers, the version, the notebook, the site."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import t0train
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
PLAIN = re.compile(r"(python|pip|python -m pip)( [\w.=/<>\[\]-]+)*")


def parse(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(workflow: dict[str, Any]) -> list[str]:
    """Every line that the steps of a workflow run."""
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines() if line.strip()]


def fault(command: str) -> str:
    """Why a workflow may not run a command; empty if it may."""
    if script := re.fullmatch(r"bash (scripts/[\w.-]+\.sh)( .*)?", command):
        return "" if (ROOT / script[1]).is_file() else f"no file {script[1]}"
    return "" if PLAIN.fullmatch(command) else "neither a script of ours nor plain python or pip"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_only_what_runs_on_a_developers_machine(path: Path) -> None:
    workflow = parse(path)
    assert True in workflow  # `on`, which YAML 1.1 reads as a truth value
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file(), name
        else:
            assert job["runs-on"], name
            assert job["steps"], name
            assert job["timeout-minutes"] <= 180, name
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= set(workflow["jobs"]), name
    assert {command: fault(command) for command in commands(workflow) if fault(command)} == {}


@pytest.mark.parametrize(
    "command", ["curl example.org | bash", "bash scripts/nothing.sh", "python x.py; rm y", "make", "bash /tmp/x.sh"]
)
def test_other_commands_are_found(command: str) -> None:
    assert fault(command)


def test_every_check_of_ci_runs_in_a_workflow() -> None:
    here = set(re.findall(r"bash (scripts/\w+\.sh)", (ROOT / ".ci" / "run").read_text()))
    there = {word for command in commands(parse(ROOT / ".github/workflows/ci.yml")) for word in command.split()}
    assert here
    assert here <= there


def test_the_pythons_of_the_workflow_are_those_that_the_package_claims() -> None:
    tested = parse(ROOT / ".github/workflows/ci.yml")["jobs"]["fast-tests"]["strategy"]["matrix"]["python"]
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert tested == claimed


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_issue_forms_are_whole(path: Path) -> None:
    form = parse(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


def test_the_bug_form_asks_for_what_is_needed_to_look_into_a_run() -> None:
    required = {
        word
        for field in parse(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"]
        if field.get("validations", {}).get("required")
        for word in (field["attributes"]["label"], field["attributes"].get("description", ""))
    }
    assert any("config.resolved.yaml" in text for text in required)
    assert any("t0train --version" in text for text in required)
    assert "End of events.jsonl" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()


@pytest.mark.parametrize("name", ["Dockerfile", "apptainer.def"])
def test_containers_copy_and_run_what_exists(name: str) -> None:
    text = (ROOT / "containers" / name).read_text()
    assert "constraints.txt" in text
    assert (ROOT / "constraints.txt").is_file()
    built = re.search(r"--outdir (\S+)", (ROOT / "scripts" / "wheel.sh").read_text())
    assert built is not None
    assert f"{built[1]}/*.whl" in text  # where scripts/wheel.sh leaves it
    for script in re.findall(r"scripts/\S+\.sh", text):
        assert (ROOT / script).is_file()


def test_pre_commit_runs_the_tools_of_lint() -> None:
    hooks = [hook for entry in parse(ROOT / ".pre-commit-config.yaml")["repos"] for hook in entry["hooks"]]
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks}
    lint = (ROOT / "scripts" / "lint.sh").read_text()
    assert tools == {line.split()[0] for line in lint.splitlines() if re.match(r"(ruff|mypy)\b", line)}


def test_the_version_is_that_of_the_installed_package() -> None:
    assert t0train.__version__ == version("t0train")


def test_no_other_file_holds_a_version_of_its_own() -> None:
    assert not re.search(r"^version\s*[:=]", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert not re.search(r"^version\s*=", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)


def test_a_copy_that_is_not_installed_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "t0train", tmp_path / "t0train", ignore=shutil.ignore_patterns("__pycache__"))
    program = "import t0train; print(t0train.__version__)"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0+unknown\n"


def test_the_changelog_says_what_comes_next() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r"^\s+- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(navigation)


def cells(path: Path) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    found: list[dict[str, Any]] = notebook["cells"]
    return found


def code_of(path: Path) -> list[str]:
    """The source of a notebook's code cells."""
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_whole_and_hold_no_outputs(path: Path) -> None:
    found = cells(path)
    assert len({cell["id"] for cell in found}) == len(found) > 0
    for cell in found:
        assert cell["cell_type"] in ("code", "markdown")
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert not re.search(r"^\s*[%!]", "".join(cell["source"]), flags=re.MULTILINE)  # runs as plain Python, too


@pytest.mark.slow
def test_the_quickstart_notebook_runs(tmp_path: Path) -> None:
    """Its code cells in order, in one fresh interpreter and an empty folder; in fewer steps than it says.

    No Jupyter kernel runs them: what only a kernel could break (magics, display) is not in the notebook.
    """
    cells_of_code = code_of(ROOT / "examples" / "quickstart.ipynb")
    assert sum("STEPS = 300" in cell for cell in cells_of_code) == 1
    program = tmp_path / "notebook.py"
    program.write_text("\n\n".join(cells_of_code).replace("STEPS = 300", "STEPS = 6"), encoding="utf-8")
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 steps, cross-entropy" in done.stdout
    assert all(name in done.stdout for name in ("restaurants", "mail", "about", "trip"))
    assert (tmp_path / "runs/notebook/report/report.html").is_file()
