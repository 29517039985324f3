from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from t0train.cli.prompts import app
from t0train.core.errors import UserError

TEMPLATES = """\
templates:
  one: !Template
    name: Sound
    jinja: What does a {{animal}} say? ||| {{answer_choices[label]}}
    answer_choices: moo ||| [b]oink[/b]
    metadata: !TemplateMetadata {original_task: true, metrics: [Accuracy]}
  two: !Template
    name: Only cows
    jinja: "{% if animal == 'cow' %}{{animal}} ||| {{ [1, 2, 3, 4] | choice }}{% endif %}"
"""
RECORDS = [{"animal": "pig", "label": 1}, {"animal": "cow", "label": 0}, {"animal": "cow", "label": 0}]


@pytest.fixture
def barn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name a folder of templates and one of records; no collection is installed."""
    monkeypatch.setenv("T0TRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("T0TRAIN_TEMPLATES", raising=False)
    (tmp_path / "templates" / "farm").mkdir(parents=True)
    (tmp_path / "templates" / "farm" / "templates.yaml").write_text(TEMPLATES)
    (tmp_path / "records" / "farm" / "default").mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "records" / "farm" / "default" / "train.jsonl").write_text(lines)
    return ["--templates", str(tmp_path / "templates"), "--data", str(tmp_path / "records")]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception:
        raise result.exception
    return result.output


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_show_sets_input_target_and_choices_apart(barn: list[str]) -> None:
    output = run("show", "farm", "--template", "Sound", "--n", "2", *barn)
    assert "template | What does a {{animal}} say? ||| {{answer_choices[label]}}" in output
    assert (
        "record 0\n   input | What does a pig say?\n  target | [b]oink[/b]\n choices | moo\n         | [b]oink[/b]"
        in output
    )
    assert "record 1\n   input | What does a cow say?\n  target | moo" in output
    assert "record 2" not in output


def test_show_gives_json_and_counts_dropped_records(barn: list[str]) -> None:
    (document,) = run_json("show", "farm", "--template", "Only cows", "--n", "1", *barn)
    assert (document["name"], document["columns"], document["dropped"]) == ("Only cows", ["animal"], 1)
    (example,) = document["examples"]
    assert (example["record"], example["input"], example["choices"]) == (1, "cow", None)
    assert document == run_json("show", "farm", "--template", "Only cows", "--n", "1", *barn)[0]
    targets = {
        run_json("show", "farm", "--template", "Only cows", "--n", "1", "--seed", str(seed), *barn)[0]["examples"][0][
            "target"
        ]
        for seed in range(12)
    }
    assert len(targets) > 1


def test_show_without_records_prints_all_templates(barn: list[str]) -> None:
    documents = run_json("show", "farm", "--n", "0", *barn[:2])
    assert [document["name"] for document in documents] == ["Only cows", "Sound"]
    assert all("examples" not in document for document in documents)


def test_list(barn: list[str]) -> None:
    assert run_json("list", *barn[:2]) == [{"dataset": "farm", "subset": "", "templates": 2, "original": 1}]
    cows, sound = run_json("list", "farm", *barn[:2])
    assert cows == {"name": "Only cows", "original": False, "choices": "none", "metrics": [], "columns": ["animal"]}
    assert (sound["choices"], sound["metrics"]) == ("moo / [b]oink[/b]", ["Accuracy"])
    assert "moo / [b]oink[/b]" in run("list", "farm", *barn[:2])


def test_show_says_how_many_records_have_a_problem(barn: list[str]) -> None:
    path = Path(barn[3]) / "farm" / "default" / "train.jsonl"
    path.write_text("".join(json.dumps({"animal": "pig", "label": label}) + "\n" for label in ("1", "0", "oink")))
    output = run("show", "farm", "--template", "Sound", "--n", "3", *barn)
    assert "3 of 3 targets are <NO LABEL>" in output
    assert "in 3 of 3 examples the label indexes no answer choice" in output
    path.write_text("".join(json.dumps({"animal": None, "label": label}) + "\n" for label in (-1, 0, 2)))
    output = run("show", "farm", "--template", "Sound", "--n", "9", *barn)
    assert "1 of 3 targets are <NO LABEL>" in output
    assert "in 1 of 3 examples the label is negative" in output
    assert '3 of 3 examples print a null as "None"' in output
    (document,) = run_json("show", "farm", "--template", "Sound", "--n", "9", *barn)
    assert document["notes"] == {"no_label": 1, "no_choice": 1, "last_choice": 1, "null": 3}
    path.write_text(json.dumps({"animal": "cow", "label": 0}))
    assert " of 1 " not in run("show", "farm", "--template", "Sound", *barn)


def test_show_reads_columns_named_like_jinjas_functions(barn: list[str]) -> None:
    templates = Path(barn[1]) / "farm" / "templates.yaml"
    templates.write_text("templates: {x: {name: Zip, jinja: 'Where is {{range}}? ||| {{zip}}'}}")
    path = Path(barn[3]) / "farm" / "default" / "train.jsonl"
    path.write_text(json.dumps({"animal": "cow", "zip": "02134", "range": "the barn"}))
    (document,) = run_json("show", "farm", *barn)
    (example,) = document["examples"]
    assert (example["input"], example["target"]) == ("Where is the barn?", "02134")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "farms"], "did you mean 'farm'"),
        (["show", "farm", "--template", "Sounds"], "did you mean 'Sound'"),
        (["show", "farm", "--split", "test"], "train"),
        (["show", "farm", "--split", "train[:x]"], "train"),
    ],
)
def test_bad_names_are_user_errors(barn: list[str], arguments: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        run(*arguments, *barn)


def test_a_missing_column_is_a_user_error(barn: list[str]) -> None:
    records = Path(barn[3]) / "farm" / "default" / "train.jsonl"
    records.write_text(records.read_text().replace("label", "labels"))
    with pytest.raises(UserError, match="'label': did you mean 'labels'"):
        run("show", "farm", "--template", "Sound", *barn)


def test_without_a_collection_list_says_how_to_get_one(barn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="t0train prompts install"):
        run("list")


def test_install_from_a_wrong_file(barn: list[str], tmp_path: Path) -> None:
    (tmp_path / "promptsource.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="sha256"):
        run("install", "--from", str(tmp_path / "promptsource.tar.gz"))
