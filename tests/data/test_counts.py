"""Targets that teach nothing: counted for each task, said in a line, refused where they are all of a task's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from t0train.cli.data import app as data_app
from t0train.cli.mixture import app as mixture_app
from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.data import Counts, load_vocabulary, open_folder, open_loader, prepare, remarks
from t0train.prompts import Note
from tests.data.conftest import Configure, write_templates

SENTIMENT = ("sent", "{{ text }} Is it blue? ||| {{ answer_choices[label] }}", "No ||| Yes")


@pytest.fixture
def small(tmp_path: Path, configure: Configure) -> Any:
    """A run over given rows of one dataset, `colours`, under given templates."""

    def make(rows: list[dict[str, Any]], *templates: tuple[str, str, str | None], **data: Any) -> RunConfig:
        folder = tmp_path / "rows" / "colours" / "default"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_templates(tmp_path / "templates", "colours", list(templates))
        (tmp_path / "catalogue.csv").write_text(f"name,stage,train_size\ncolours,BASE,{len(rows)}\n")
        paths = {
            "source": str(tmp_path / "rows"),
            "templates": [str(tmp_path / "templates")],
            "catalogue": str(tmp_path / "catalogue.csv"),
        }
        return configure(**paths, **data)

    return make


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": "apple leaf", "label": label} for label in labels]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["0", "1"], "2 of 2 targets are <NO LABEL>"),
        ([0.0, 1.0], "2 of 2 targets are <NO LABEL>"),
        ([None, None], "2 of 2 targets are <NO LABEL>"),
        (["No", "Yes"], "2 of 2 targets are <NO LABEL>"),
        ([2, 3], "2 of 2 targets are <NO LABEL>"),
        ([-1, -1], "in 2 of 2 examples the label is negative"),
    ],
)
def test_labels_that_index_no_choice_are_refused(small: Any, labels: list[Any], sentence: str) -> None:
    run = small(labelled(*labels), SENTIMENT)
    with pytest.raises(UserError, match=rf"1 of 1 tasks(?s:.)*colours_sent: {sentence}(?s:.)*allow_empty_targets"):
        prepare(run, 1)
    with pytest.raises(UserError, match=rf"1 of 1 tasks(?s:.)*colours_sent: {sentence}"):
        prepare(run, 1)  # everything is there already
    with pytest.raises(UserError, match=f"colours_sent: {sentence}"):
        open_loader(run)
    allowed = small(labelled(*labels), SENTIMENT, allow_empty_targets=True)
    assert [task.made for task in prepare(allowed, 1)] == [False]
    assert any(f"colours_sent: {sentence}" in remark for remark in open_loader(allowed).mixture.remarks)


@pytest.mark.parametrize(
    ("row", "template", "sentence"),
    [
        ({"thing": None}, "What is it? ||| {{ thing }}", '2 of 2 targets are "None", made of a null'),
        ({"thing": {"txt": "leaf"}}, "What is it? ||| the {{ thing.text }}", "print a field that does not exist"),
        ({"thing": "\u200b"}, "What is it? ||| {{ thing }}", "2 of 2 targets show nothing"),
    ],
    ids=["null", "undefined", "blank"],
)
def test_targets_that_hold_nothing_are_refused(small: Any, row: dict[str, Any], template: str, sentence: str) -> None:
    run = small([row, row], ("one", template, None))
    with pytest.raises(UserError, match=f"colours_one: .*{sentence}"):
        prepare(run, 1)


def test_some_bad_targets_are_said_and_go_on(small: Any) -> None:
    run = small(labelled(1, 2, 0, -1, 2, 1), SENTIMENT)
    [prepared] = prepare(run, 1)
    assert prepared.counts.examples == 6
    assert dict(prepared.counts.notes) == {Note.NO_LABEL: 2, Note.NO_CHOICE: 2, Note.LAST_CHOICE: 1}
    said = remarks({prepared.task: prepared.counts})
    assert "colours_sent: 2 of 6 targets are <NO LABEL>: the template printed nothing as the target" in said
    assert [line in open_loader(run).mixture.remarks for line in said] == [True] * len(said)
    assert open_folder(prepared.folder).counts == prepared.counts


def test_targets_beside_the_choices_are_said_but_teach_something(small: Any) -> None:
    run = small(labelled(0, 1), ("free", "{{ text }} ||| the leaf", "No ||| Yes"))
    [prepared] = prepare(run, 1)
    assert remarks({"colours_free": prepared.counts})[0] == (
        "colours_free: 2 of 2 targets are not among the answer choices"
    )


def test_unknown_tokens_are_counted_by_an_independent_count(small: Any, t5_vocabulary: Path) -> None:
    """{ } < and a newline are not in T5's vocabulary (a newline counts as a blank there)."""
    rows = [{"q": f"age over {i}", "target": f'{{"age": {{"$lt": {i}}}}}', "sql": f"age < {i}"} for i in range(4)]
    run = small(
        rows,
        ("js", "JSON {{ q }} ||| {{ target }}", None),
        ("sql", "SQL {{ q }} ||| {{ sql }}", None),
        vocabulary=str(t5_vocabulary),
    )
    vocabulary = load_vocabulary(t5_vocabulary)
    counts = {task.task: task.counts for task in prepare(run, 1)}
    # each run of characters that no piece holds is one unknown token: `{`, `{`, `}}` and `<`
    assert (counts["colours_js"].unknown_target_tokens, counts["colours_sql"].unknown_target_tokens) == (12, 4)
    assert counts["colours_sql"].target_tokens == sum(len(vocabulary.encode(row["sql"])) + 1 for row in rows)
    assert counts["colours_sql"].unknown_input_tokens == 0


def test_counts_of_shards_are_added_up(small: Any) -> None:
    labels = [i % 3 for i in range(5000)]  # three shards
    [prepared] = prepare(small(labelled(*labels), SENTIMENT), 1)
    assert prepared.counts.examples == 5000
    assert prepared.counts.notes[Note.NO_LABEL] == labels.count(2)
    vocabulary, tokens = load_vocabulary(small(labelled(0), SENTIMENT).data.vocabulary), open_folder(prepared.folder)
    assert prepared.counts.target_tokens == int(tokens.target_lengths.sum())
    unknown = sum(int((tokens.targets(i) == vocabulary.unknown_id).sum()) for i in range(5000))
    assert prepared.counts.unknown_target_tokens == unknown > 0  # of <NO LABEL>


def test_many_tasks_share_a_line_that_names_the_worst() -> None:
    counts = {
        f"task_{i}": Counts(10, {Note.NULL: i, Note.UNDEFINED: 1 if i == 4 else 0}, target_tokens=20, input_tokens=90)
        for i in range(8)
    }
    lines = remarks(counts)
    assert len(lines) == 2
    assert lines[0].startswith('7 tasks: 28 of 70 examples print a null as "None"; most in task_7 (70.0%), task_6')
    assert "task_3" in lines[0]
    assert "task_2" not in lines[0]
    assert lines[1] == 'task_4: 1 of 10 examples print a field that does not exist, as ""'


def test_the_commands_say_it(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"

    def call(app: Any, command: str, *arguments: str) -> str:
        app([command, str(path), *arguments], standalone_mode=False)
        captured = capsys.readouterr()
        return captured.out + captured.err

    def write(run: RunConfig) -> None:
        path.write_text(yaml.safe_dump({"mixture": {"name": "catalogue"}, "data": run.data.model_dump()}))

    line = "colours_sent: 1 of 2 targets are <NO LABEL>"
    write(small(labelled(1, 2), SENTIMENT))
    assert line in call(data_app, "prepare", "--workers", "1")
    data_app(["prepare", str(path), "--json"], standalone_mode=False)
    [task] = json.loads(capsys.readouterr().out)
    assert task["remarks"][0].startswith("1 of 2 targets are <NO LABEL>")
    assert task["counts"]["notes"]["no_label"] == 1
    assert line in call(data_app, "inspect", "--rows", "0")
    assert line in call(mixture_app, "check")
    write(small(labelled(2, 2), SENTIMENT))
    for app, command in ((data_app, "prepare"), (mixture_app, "check")):
        with pytest.raises(UserError, match="colours_sent: 2 of 2 targets are <NO LABEL>"):
            call(app, command)
    assert "2 of 2 targets are <NO LABEL>" in call(data_app, "inspect", "--rows", "1")
    assert "all checksums match" in call(data_app, "verify")
