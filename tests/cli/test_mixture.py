"""`t0train mixture`: what is printed, and where; exit codes of bad input."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from t0train.cli.mixture import app
from t0train.core.errors import UserError
from t0train.mixture import load_mixture
from t0train.report import read_run

pytestmark = pytest.mark.usefixtures("promptsource_folder", "empty_store")


@pytest.fixture
def empty_store(promptsource_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without prepared tasks, but with the templates."""
    monkeypatch.setenv("T0TRAIN_TEMPLATES", str(promptsource_folder))
    monkeypatch.setenv("T0TRAIN_CACHE", str(tmp_path / "cache"))


def run(*arguments: str) -> tuple[str, str]:
    """Standard output and error of a call that succeeds."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def refusal(*arguments: str) -> str:
    """The message of a call that is refused."""
    error = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(error, UserError)
    return str(error)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten rows of TREC and of IMDB, both splits, which differ."""
    samples = {"trec": {"text": "Who?", "label-coarse": 3, "label-fine": 2}, "imdb": {"text": "Good.", "label": 1}}
    for name, row in samples.items():
        folder = tmp_path / "rows" / name / "default"
        folder.mkdir(parents=True)
        for split, changes in (("train", {}), ("test", {"text": "Else."})):
            (folder / f"{split}.jsonl").write_text(10 * (json.dumps({**row, **changes}) + "\n"))
    return tmp_path / "rows"


def config(folder: Path, *lines: str) -> str:
    path = folder / "run.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_list_names_every_mixture_with_its_size() -> None:
    found = {entry["name"]: (entry["datasets"], entry["tasks"]) for entry in json.loads(run("list", "--json")[0])}
    assert (found["t0"], found["t0pp"], found["catalogue"]) == ((38, 313), (54, 464), (None, None))
    assert "t0_original_task_only" in run("list")[0]


def test_prompts_are_drawn_by_their_own_seed() -> None:
    def drawn(*overrides: str) -> set[str]:
        document = json.loads(
            run("show", "t0", "mixture.include=[glue/mrpc]", "mixture.prompts=3", *overrides, "--json")[0]
        )
        return {row["task"] for row in document["tasks"]}

    assert drawn("seed=1") == drawn("seed=2") == drawn()
    assert len({frozenset(drawn(f"mixture.prompts_seed={seed}")) for seed in range(5)}) > 1


def test_json_csv_and_table_show_the_same_mixture() -> None:
    mixture = load_mixture("t0_single_prompt")
    document = json.loads(run("show", "t0_single_prompt", "--json")[0])
    assert (document["hash"], document["rate_sum"]) == (mixture.hash, 1_993_444)
    assert [row["task"] for row in document["tasks"]] == [task.name for task in mixture.tasks]
    assert [row["probability"] for row in document["tasks"]] == mixture.probabilities.tolist()
    output, notes = run("show", "t0_single_prompt", "--csv", "--tasks")
    lines = list(csv.DictReader(io.StringIO(output)))
    assert [float(line["probability"]) for line in lines] == mixture.probabilities.tolist()
    assert [line["template"] for line in lines] == [task.template.name for task in mixture.tasks]
    assert "quarel" in notes  # remarks do not mix with the table
    datasets = list(csv.DictReader(io.StringIO(run("show", "t0_single_prompt", "--csv")[0])))
    assert len(datasets) == len(document["datasets"]) == 35
    table = run("show", "t0_single_prompt")[0]
    assert "363,846" in table
    assert "35 tasks of 35 datasets, sum of rates 1,993,444" in table


def test_available_records_and_epochs_are_shown(rows: Path) -> None:
    keys = ["mixture.include=[trec,imdb]", f"data.source={rows}", "mixture.rates_from=records"]
    document = json.loads(run("show", "t0", *keys, "--json", "--steps", "29", "--examples-per-row", "0.009765625")[0])
    assert {row["dataset"]: (row["records"], row["rate_sum"]) for row in document["datasets"]} == {
        "trec": (10, 180.0),  # 18 templates
        "imdb": (10, 110.0),  # 11 templates
    }
    # 29 steps x 1,024 rows / 102.4 = 290 examples: each row of each of the 29 tasks once
    assert all(row["epochs"] == pytest.approx(1) for row in document["tasks"])


def test_epochs_need_the_examples_of_a_step() -> None:
    assert "--examples-per-row" in refusal("show", "t0", "--steps", "100")
    document = json.loads(run("show", "t0", "train.batch.examples=1000", "--steps", "17277798", "--json")[0])
    epochs = {row["task"]: row["epochs"] for row in document["tasks"]}
    assert epochs["xsum_DOC_tldr"] == pytest.approx(1000)  # as many draws as the sum of rates, 1,000 times
    assert epochs["yelp_review_full_so_i_would"] == pytest.approx(1000 * 71_428 / 650_000)  # capped


def test_mean_tokens_of_what_is_prepared(rows: Path, tmp_path: Path, t5_vocabulary: Path) -> None:
    """One row, repeated: the mean is that row's number of tokens."""
    import sentencepiece

    from t0train.config import load_config
    from t0train.data import prepare

    data = f"source: {rows}, vocabulary: {t5_vocabulary}, store: {tmp_path / 'store'}"
    path = config(tmp_path, "mixture: {include: [imdb_Movie_Expressed_Sentiment]}", f"data: {{{data}}}")
    prepare(load_config(path), workers=1)
    keys = [f"data.{pair.replace(': ', '=')}" for pair in data.split(", ")]
    document = json.loads(run("show", "t0", "mixture.include=[imdb]", *keys, "--json")[0])
    found = {row["task"]: (row["mean_inputs"], row["mean_targets"]) for row in document["tasks"]}
    model = sentencepiece.SentencePieceProcessor(model_file=str(t5_vocabulary))
    text = "Good. The sentiment expressed for the movie is"
    assert found.pop("imdb_Movie_Expressed_Sentiment") == (len(model.encode(text)), len(model.encode("positive")) + 1)
    assert set(found.values()) == {(None, None)}
    (rows / "imdb/default/train.jsonl").write_text('{"text": "Bad.", "label": 0}\n')  # prepared from other rows
    assert "mean inputs" not in run("show", "t0", "mixture.include=[imdb]", *keys)[0]


def test_check_passes_when_all_records_are_there(rows: Path, tmp_path: Path) -> None:
    path = config(tmp_path, "mixture: {include: [trec, imdb]}", f"data: {{source: {rows}}}")
    output, notes = run("check", path)
    assert "29 tasks of 2 datasets" in output
    assert f"; all found in {rows}" in output
    assert "imdb 10 < 25,000" in notes
    assert json.loads(run("check", path, "--json")[0])["records"] == {"imdb": 10, "trec": 10}


def test_check_lists_what_is_missing_with_its_weight(rows: Path, tmp_path: Path) -> None:
    path = config(tmp_path, "mixture: {include: [trec, ag_news]}", f"data: {{source: {rows}}}")
    message = refusal("check", path)
    assert "ag_news (train)" in message
    assert f"{7 * 120_000 / (7 * 120_000 + 18 * 5_452):.1%} of its weight" in message
    result = CliRunner().invoke(app, ["check", path, "--json"])
    assert isinstance(result.exception, UserError)
    (missing,) = json.loads(result.stdout)["missing"]
    assert missing["dataset"] == "ag_news"
    output, notes = run("check", path, "data.missing=drop")
    assert "18 tasks of 1 datasets" in output
    assert f"; 1 datasets dropped, the others found in {rows}" in output
    assert "dropped" in notes


def test_check_says_once_that_the_source_is_wrong(rows: Path, tmp_path: Path) -> None:
    """T0's 38 datasets in no folder, in a file, in an empty folder, and one level above the rows."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for source, reason in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "file", "a file"),
        (tmp_path / "empty", "an empty folder"),
        (tmp_path, f"did you mean {rows}, which holds some of them?"),
    ):
        message = refusal("check", "t0", f"data.source={source}")
        assert message.count(reason) == message.count(str(source)) - message.count(f"{source}/") == 1
        assert "38 of the 38 datasets" in message
        assert all(f"{key} (train)" in message for key in ("glue/mrpc", "imdb", "xsum"))
        assert len(message.splitlines()) == 4


def test_check_refuses_records_that_are_both_trained_on_and_scored(rows: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: s\ntasks:\n- {dataset: trec, split: 'test[:5]'}\n- {dataset: imdb, split: test}\n")
    lines = [f"suite: {suite}", "mixture: {include: [trec, imdb]}"]
    leaking = config(tmp_path, *lines, f"data: {{source: {rows}, splits: {{trec: 'test[4:]'}}}}")
    assert "trec: records that are scored are trained on" in refusal("check", leaking)
    assert "imdb is not held out" in refusal("check", leaking, "data.splits.trec=test[5:]")
    output, notes = run("check", leaking, "data.splits.trec=test[5:]", "leaks.held_out=records")
    assert "29 tasks" in output
    assert "imdb is not held out" in notes


def test_check_shows_texts_that_scored_and_training_records_share(rows: Path, tmp_path: Path) -> None:
    text = "One two three four five six seven eight nine ten eleven twelve thirteen"
    for split, review in (("train", f"Well: {text}, fourteen."), ("test", f"{text.upper()}!")):
        (rows / f"imdb/default/{split}.jsonl").write_text(json.dumps({"text": review, "label": 1}) + "\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: s\ntasks:\n- {dataset: imdb, split: test}\n- {dataset: trec, split: dev}\n")
    lines = ["mixture: {include: [imdb]}", f"data: {{source: {rows}}}", "leaks: {held_out: records}"]
    path = config(tmp_path, *lines)
    assert "needs a suite" in refusal("check", path, "--ngrams")
    output, notes = run("check", path, "--suite", str(suite), "--ngrams")
    assert f"imdb record 0, 100% of its 13-grams, e.g. of imdb record 0: {text.lower()}" in output
    assert "not compared: trec: no split 'dev'" in notes
    (found,) = json.loads(run("check", path, "--suite", str(suite), "--ngrams", "--json")[0])["overlaps"]["overlaps"]
    assert (found["touched"], found["sources"]) == (1, {"imdb": 1})
    (rows / "imdb/default/test.jsonl").write_text('{"text": "Too short.", "label": 1}\n')
    lines = run("check", path, "--suite", str(suite), "--ngrams")[0].splitlines()
    assert ["imdb", "test", "1", "1", "-", "-", "-"] in [line.split() for line in lines]


def test_shared_texts_of_a_run_are_kept_for_its_reports(rows: Path, tmp_path: Path) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    for split in ("train", "test"):
        (rows / f"imdb/default/{split}.jsonl").write_text(json.dumps({"text": f"{split} {text}", "label": 1}) + "\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: s\ntasks:\n- {dataset: imdb, split: test}\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = ["mixture: {include: [imdb]}", f"data: {{source: {rows}}}", "leaks: {held_out: records}"]
    Path(config(tmp_path, *lines)).rename(folder / "config.resolved.yaml")
    run("check", str(folder), "--suite", str(suite))
    assert not (folder / "eval").exists()
    _, notes = run("check", str(folder), "--suite", str(suite), "--ngrams")
    assert "eval/s/leaks.json" in notes
    (found,) = read_run(folder).overlaps["s"].overlaps
    assert (found.dataset, found.records, found.touched, found.sources) == ("imdb", 1, 1, {"imdb": 1})


def test_check_names_a_missing_column(rows: Path, tmp_path: Path) -> None:
    (rows / "imdb/default/train.jsonl").write_text('{"review": "Good.", "label": 1}\n')
    path = config(tmp_path, "mixture: {include: [imdb]}", f"data: {{source: {rows}}}")
    assert "'text'" in refusal("check", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "t0x"), "did you mean"),
        (("show", "t0", "mixture.exclude=[summarisation]"), "did you mean 'summarization'"),
        (("show", "t0", "mixture.promts=one"), "did you mean 'prompts'"),
        (("show", "t0", "mixture.prompts=0"), "mixture.prompts"),
        (("show", "t0", "exclude"), "key=value"),
        (("show", "catalogue"), "data.catalogue"),
        (("check", "no_such_run"), "no_such_run"),
        (("check", "t0", "data.source=/no/such/folder"), "no such folder"),
    ],
)
def test_bad_input_is_one_message(arguments: tuple[str, ...], message: str) -> None:
    assert message in refusal(*arguments)


def test_help_is_light_and_shows_examples() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from t0train.cli.mixture import app\n"
        "for name in ('list', 'show', 'check'):\n"
        "    result = CliRunner().invoke(app, [name, '--help']); assert 'Example: t0train mixture' in result.stdout\n"
        "CliRunner().invoke(app, ['show', 't0'], catch_exceptions=False)\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "matplotlib"} & set(loaded)
