"""`t0train eval` and `t0train generate` on a run that was really trained, if only for two steps."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard

from t0train.cli.main import main
from t0train.data import load_vocabulary
from t0train.evals import open_model, rank_choices
from t0train.evals.prediction_cache import fingerprint
from t0train.model import export_model, load_model
from tests.evals.films import RECORDS, train_on_films, train_vocabulary, write_films


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def t0train(*arguments: str | Path, text: str | bytes = "") -> Ended:
    """The command in this process: importing torch and transformers anew for each call would take minutes."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["t0train", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode() if isinstance(text, str) else text))),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def run(films: Path) -> Path:
    """A run folder with a checkpoint of step 2, and beside it the suite that it names."""
    torch.set_num_threads(1)
    return train_on_films(films)


def result_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return document


def test_run_is_evaluated_on_its_own_suite(run: Path) -> None:
    ended = t0train("eval", run, "--prompts")
    assert ended.returncode == 0, ended.stderr
    for text in ("films", "majority", "good or bad", "no answer choices"):
        assert text in ended.stdout
    document = result_of(run / "eval" / "films_suite")
    weights = fingerprint(load_model(run))
    facts = {"name": "small", "step": 2, "untrained": False, "selected": False, "weights": weights}
    assert facts.items() <= document["model"].items()
    assert [prompt["records"] for prompt in document["tasks"][0]["prompts"]] == [
        60,
        60,
        sum(record["long"] for record in RECORDS),
    ]


def test_scores_are_those_of_the_checkpoint(run: Path) -> None:
    ended = t0train("eval", run, "--limit", "10", "--out", run.parent / "few", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == result_of(run.parent / "few")
    lines = pq.read_table(run.parent / "few" / "scores.parquet").to_pylist()
    lines = [line for line in lines if line["prompt"] == "good or bad"]
    texts = [(f"{RECORDS[line['record']]['text']} . is it good or bad", ["bad", "good"]) for line in lines]
    expected = rank_choices(load_model(run).eval(), load_vocabulary(run.parent / "spiece.model"), texts)
    np.testing.assert_allclose([line["scores"] for line in lines], expected, atol=1e-4)


def test_untrained_model_is_the_one_before_the_first_step(run: Path) -> None:
    ended = t0train("eval", run, "--untrained", "--limit", "5")
    assert ended.returncode == 0, ended.stderr
    assert result_of(run / "eval" / "films_suite-untrained")["model"]["untrained"]
    before, after = open_model(str(run), untrained=True), open_model(str(run))
    assert (before.facts.step, after.facts.step) == (0, 2)
    moved = (before.model.shared.weight - after.model.shared.weight).square().mean().sqrt()
    assert 0 < moved < 0.1 * before.model.shared.weight.square().mean().sqrt()


def test_exported_folder_gives_the_same_scores(run: Path) -> None:
    folder = export_model(load_model(run), run.parent / "exported", run.parent / "spiece.model")
    suite = run.parent / "own.yaml"
    suite.write_text(
        "name: own\n"
        f"data: {run.parent / 'data'}\n"
        f"catalogue: {run.parent / 'catalogue.csv'}\n"
        f"templates: [{run.parent / 'templates'}]\n"
        "tasks:\n  - {dataset: films, prompts: original}\n"
    )
    parts = {}
    for name, model in (("run", run), ("exported", folder)):
        out = run.parent / f"out-{name}"
        ended = t0train("eval", model, "--suite", suite, "--store", run.parent / "store", "--out", out)
        assert ended.returncode == 0, ended.stderr
        parts[name] = pq.read_table(out / "scores.parquet").column("scores").combine_chunks().flatten().to_numpy()
    np.testing.assert_allclose(parts["run"], parts["exported"], atol=1e-5)


def test_bad_input_is_one_message_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ("--out", tmp_path / "out")
    for arguments, complaint in (
        ((tmp_path / "nothing", "--suite", run.parent / "suite.yaml"), "no model folder"),
        ((empty, "--suite", run.parent / "suite.yaml"), "holds no model"),
        ((run, "--suite", "no_such_suite"), "no file no_such_suite"),
        ((empty,), "holds no model"),
        ((run / "checkpoints",), "holds no model"),
        ((run / "checkpoints", "--suite", run.parent / "suite.yaml"), "holds no model"),
        (("nowhere",), "no model folder"),
        (("some/model",), "no suite"),
        ((run, "--data", empty), "none of the suite's 1 tables is available"),
    ):
        ended = t0train("eval", *arguments, *out)
        assert ended.returncode == 2, ended.stderr
        assert complaint in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
        assert not (tmp_path / "out").exists()


def test_another_vocabulary_or_a_damaged_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    config = (copy / "config.resolved.yaml").read_text()
    other = train_vocabulary(tmp_path, "other", ["quite other words that nobody used before"] * 50)
    (copy / "config.resolved.yaml").write_text(config.replace(str(run.parent / "spiece.model"), str(other)))
    ended = t0train("eval", copy, "--out", tmp_path / "out")
    assert ended.returncode == 2, ended.stderr
    assert "is not the vocabulary" in ended.stderr

    (copy / "config.resolved.yaml").write_text(config)
    [file] = copy.glob("checkpoints/step-00000002/state/*.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = t0train("eval", copy, "--out", tmp_path / "out")
    assert ended.returncode == 2, ended.stderr
    assert "damaged" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_generate_from_a_prompt_a_file_and_stdin(run: Path, tmp_path: Path) -> None:
    prompts = ["the film was good ?", "the film was very very good . yes or no"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\ufeff" + "".join(json.dumps({"id": i, "input": text}) + "\n" for i, text in enumerate(prompts)))
    options = ("--max-new-tokens", "6")
    from_file = t0train("generate", run, "--input", file, *options)
    assert from_file.returncode == 0, from_file.stderr
    rows = [json.loads(line) for line in from_file.stdout.splitlines()]
    assert [(row["id"], row["input"]) for row in rows] == list(enumerate(prompts))
    alone = t0train("generate", run, prompts[1], *options)
    assert alone.stdout == rows[1]["output"] + "\n"
    piped = t0train("generate", run, *options, text="\n".join(prompts))
    assert piped.stdout == "".join(row["output"] + "\n" for row in rows)


def test_generate_refuses_bad_input(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"input": "fine"}\n{"text": "no input"}\n')
    for arguments, complaint in (
        ((run, "--input", broken), "line 2"),
        ((run, "--input", tmp_path / "none.jsonl"), "cannot read"),
        ((run,), "stdin holds no prompt"),
        ((run, "a prompt", "--input", broken), "give one of them"),
        ((tmp_path / "nothing", "a prompt"), "no model folder"),
        ((run, " "), "is empty"),
    ):
        ended = t0train("generate", *arguments)
        assert ended.returncode == 2, ended.stderr
        assert complaint in ended.stderr
        assert ended.stdout == ""


@pytest.mark.parametrize("command", ["generate", "eval", "export"])
def test_names_of_models_that_are_not_there(
    run: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(run.parent.parent)
    folder = run.parent.name
    for name, complaint in (
        (f"{run}@2", f"a checkpoint of a run is named {run}/checkpoints/step-00000002"),
        (f"{run}@best", f"a checkpoint of a run is named {run}/checkpoints/..."),
        (run.parent / "rum", f"in {run.parent}: did you mean 'run'?"),
        (f"{folder}/rum", f"in {folder}: did you mean 'run'?"),
        (run / "checkpoints" / "step-00000007", "did you mean 'step-0000000"),
    ):
        ended = _call(command, name, tmp_path)
        assert ended.returncode == 2, ended.stderr
        assert complaint in ended.stderr
        assert ended.stdout == ""


def _call(command: str, name: str | Path, folder: Path) -> Ended:
    further: dict[str, list[str | Path]] = {
        "generate": ["the film"],
        "eval": ["--suite", "t0_selection"],
        "export": [folder / "out"],
    }
    return t0train(command, name, *further[command])


def test_prompts_that_are_no_text_are_refused(run: Path, tmp_path: Path) -> None:
    latin, escaped = tmp_path / "latin.jsonl", tmp_path / "escaped.jsonl"
    latin.write_bytes('{"input": "caf\u00e9"}\n'.encode("latin-1"))
    escaped.write_text('{"input": "fine"}\n{"input": "half \\ud800"}\n')
    for arguments, text, complaint in (
        ((run, "--input", latin), "", "latin.jsonl"),
        ((run, "--input", escaped), "", "line 2: \\ud800 is half of a surrogate pair"),
        ((run, "caf\udce9"), "", "prompt 1 of 1 is no text: character 4 is '\\udce9'"),  # as sys.argv has Latin-1
        ((run,), "fine\ncaf\u00e9\n".encode("latin-1"), "stdin"),
        ((run, "--input", tmp_path), "", "cannot read"),
    ):
        ended = t0train("generate", *arguments, text=text)
        assert ended.returncode == 2, ended.stderr
        assert complaint in ended.stderr
        assert ended.stdout == ""


def test_prompts_that_are_cut_are_counted(run: Path) -> None:
    """Each repetition is at least one token."""
    long = "good " * 1025
    ended = t0train("generate", run, "--max-new-tokens", "2", text=f"the film\n{long}\n{long}\n")
    assert ended.returncode == 0
    assert (
        "note: 2 of 3 prompts are longer than 1,024 tokens and were cut at the end; the first is prompt 2"
        in ended.stderr
    )
    assert "cut at the end" not in t0train("generate", run, "the film", "--max-new-tokens", "2").stderr


def test_checkpoints_are_compared_and_the_best_is_used(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    ended = t0train("eval", copy, "--all-checkpoints", "--limit", "6")
    assert ended.returncode == 0, ended.stderr
    selection = json.loads((copy / "eval" / "films_suite" / "selection.json").read_text())
    assert [one["step"] for one in selection["candidates"]] == [1, 2]
    for one in selection["candidates"]:
        [task] = result_of(copy / "eval" / "films_suite" / f"step-{one['step']:08d}")["tasks"]
        assert one["medians"] == {"films": task["median"]}
    assert f"selected: step {selection['step']}" in ended.stdout
    assert open_model(copy).facts.step == selection["step"]
    selected = copy / "checkpoints" / "selected.json"
    selected.unlink()
    options = (f"output={copy}", f"train.select={run.parent / 'suite.yaml'}", "--json")
    ended = t0train("train", run.parent / "run.yaml", *options)  # is complete: nothing to train
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["selected"] == json.loads(selected.read_text())["step"]
    ended = t0train("eval", copy, "--all-checkpoints", "--untrained")
    assert ended.returncode == 2
    assert "--all-checkpoints cannot be combined with" in ended.stderr


def test_export_writes_a_card_with_the_results(run: Path, tmp_path: Path) -> None:
    ended = t0train("eval", run, "--limit", "5", "--out", run / "eval" / "few")
    assert ended.returncode == 0, ended.stderr
    ended = t0train("export", run, tmp_path / "exported")
    assert ended.returncode == 0, ended.stderr
    card = ModelCard((tmp_path / "exported" / "README.md").read_text())
    assert card.data.to_dict()["library_name"] == "transformers"
    assert "t0" in card.data.to_dict()["tags"]
    assert "| films | 4 | 100.00 |" in card.content
    assert "Suite few, accuracy in %" in card.content
    assert "train.steps is 2 where T0 has 12200" in card.content.replace(",", "")


@pytest.mark.parametrize(
    ("checkpoint", "compared"), [("{every: 1, keep: 1}", [1, 2, 3, 4]), ("{every: 1, keep: 1, keep_every: 3}", [3, 4])]
)
def test_train_select_compares_all_that_it_says(
    run: Path, tmp_path: Path, checkpoint: str, compared: list[int]
) -> None:
    own = tmp_path / "own"
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: few\ntasks:\n  - {dataset: films, prompts: [good or bad], limit: 5}\n")
    settings = (f"output={own}", "train.steps=4", f"train.checkpoint={checkpoint}")
    ended = t0train("train", run.parent / "run.yaml", *settings, f"train.select={suite}")
    assert ended.returncode == 0, ended.stderr
    assert f"{len(compared)} checkpoints of " in ended.stderr
    selection = json.loads((own / "eval" / "few" / "selection.json").read_text())
    assert [one["step"] for one in selection["candidates"]] == compared
    assert selection["absent"] == []


def test_checkpoints_that_went_before_they_could_be_compared_are_named(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: few\ntasks:\n  - {dataset: films, prompts: [good or bad], limit: 5}\n")
    settings = (f"output={own}", "train.steps=4", "train.checkpoint={every: 1, keep: 2}")
    ended = t0train("train", run.parent / "run.yaml", *settings)
    assert ended.returncode == 0, ended.stderr
    ended = t0train("train", run.parent / "run.yaml", *settings, f"train.select={suite}")  # too late for 1 and 2
    assert ended.returncode == 0, ended.stderr
    assert "not compared, as their checkpoints are gone: steps 1, 2" in ended.stderr


def test_an_older_checkpoint_does_not_replace_the_results_of_the_final_one(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    folder = copy / "eval" / "films_suite"
    assert t0train("eval", copy, "--limit", "5").returncode == 0
    final = (folder / "results.json").read_bytes()
    for options in ((copy, "--step", "1"), (copy / "checkpoints" / "step-00000001",)):
        shutil.rmtree(folder / "step-00000001", ignore_errors=True)
        ended = t0train("eval", *options, "--limit", "5")
        assert ended.returncode == 0, ended.stderr
        assert str(folder / "step-00000001" / "results.json") in ended.stdout
        assert result_of(folder / "step-00000001")["model"]["step"] == 1
        assert (folder / "results.json").read_bytes() == final
    assert t0train("eval", copy, "--step", "2", "--limit", "5").returncode == 0
    assert result_of(folder)["model"]["step"] == 2
    assert "cannot be combined" in t0train("eval", copy, "--step", "2", "--untrained").stderr
    ended = t0train("eval", copy, "--step", "7")
    assert (ended.returncode, "no complete checkpoint of step 7" in ended.stderr) == (2, True)

    assert t0train("export", copy, tmp_path / "exported", "--step", "1").returncode == 0
    assert "the checkpoint of step 1 was scored" in (tmp_path / "exported" / "README.md").read_text()


def test_selected_results_leave_those_of_the_final_checkpoint_in_its_own_folder(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    folder = copy / "eval" / "films_suite"
    assert t0train("eval", copy, "--limit", "5").returncode == 0
    assert result_of(folder)["model"]["step"] == 2
    final = result_of(folder)
    (copy / "checkpoints" / "selected.json").write_text('{"step": 1, "suite": "films_suite", "compared": [1, 2]}')
    assert t0train("eval", copy, "--limit", "5").returncode == 0
    assert result_of(folder)["model"]["step"] == 1
    assert result_of(folder / "step-00000002") == final
    for name, digest in final["files"].items():
        assert hashlib.sha256((folder / "step-00000002" / name).read_bytes()).hexdigest() == digest
