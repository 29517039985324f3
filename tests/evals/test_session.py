"""Evaluations that are killed, shared by processes, and compared over checkpoints, on a run of two steps."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from t0train.core.errors import UserError
from t0train.core.run_folder import RunFolder
from t0train.evals import (
    EvalConfig,
    ModelReference,
    evaluate,
    evaluate_into,
    open_model,
    prediction_cache,
    select_checkpoint,
)
from t0train.evals.prediction_cache import fingerprint
from t0train.evals.rank import rank_tokens
from t0train.model import T5, find_weights
from tests.at_once import after_waiting, killed_while_writing
from tests.evals.conftest import small_model
from tests.evals.films import train_on_films, write_films


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_films(write_films(tmp_path_factory.mktemp("films")))


@pytest.fixture
def suite(run: Path) -> Path:
    """Two entries of the same records: three prompts to rank, one to write to."""
    path = run.parent / "both.yaml"
    path.write_text(
        "name: both\ntasks:\n  - {dataset: films, limit: 20}\n"
        "  - {dataset: films, kind: generate, limit: 4, metrics: [exact_match], max_new_tokens: 3}\n"
    )
    return path


def evaluated(folder: Path, run: Path, suite: Path, untrained: bool = False, **options: Any) -> dict[str, Any]:
    model = ModelReference.of(run, untrained)
    evaluate_into(folder, model, EvalConfig.for_model(model, str(suite), **options))
    document: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return document


class Counter:
    """Counts the tasks that reach the model; stops as a signal would when there have been `most`."""

    def __init__(self, predict: Callable[..., Any], most: int = 1000) -> None:
        self.predict, self.most, self.tasks = predict, most, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.tasks == self.most:
            raise KeyboardInterrupt
        self.tasks += 1
        return self.predict(*arguments, **options)


def test_a_killed_evaluation_continues(run: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(tmp_path / "whole", run, suite)
    rank = rank_tokens
    monkeypatch.setattr("t0train.evals.rank.rank_tokens", Counter(rank, most=2))
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "killed", run, suite)
    assert not (tmp_path / "killed" / "results.json").exists()
    for expected in (1, 0):  # of three ranked tasks
        counter = Counter(rank)
        monkeypatch.setattr("t0train.evals.rank.rank_tokens", counter)
        assert evaluated(tmp_path / "killed", run, suite) == whole
        assert counter.tasks == expected
    for name in ("scores.parquet", "generations.parquet"):
        assert pq.read_table(tmp_path / "killed" / name).equals(pq.read_table(tmp_path / "whole" / name))


def test_answers_of_another_model_or_other_records_or_a_damaged_file_are_not_used(
    run: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predicted(source: Path, **options: Any) -> int:
        counter = Counter(rank)
        monkeypatch.setattr("t0train.evals.rank.rank_tokens", counter)
        evaluated(tmp_path / "out", source, suite, **options)
        return counter.tasks

    rank = rank_tokens
    assert predicted(run / "checkpoints" / "step-00000001") == 3
    assert predicted(run / "checkpoints" / "step-00000002") == 3
    assert predicted(run / "checkpoints" / "step-00000001") == 0
    (tmp_path / "out" / "results.json").unlink()  # those of all records are not replaced by those of some
    assert predicted(run, limit=10) == 3
    damaged = next((tmp_path / "out" / "predictions").glob("*/films_good_or_bad-*.json"))
    for path in (tmp_path / "out" / "predictions").glob("*/films_good_or_bad-*.json"):
        path.write_text(damaged.read_text()[:-20])
    assert predicted(run, limit=10) == 1


def of_an_item(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content["predictions"][1] = change(content["predictions"][1])

    return apply


@pytest.mark.parametrize(
    ("task", "damage"),
    [
        ("films_good_or_bad", of_an_item(lambda scores: scores[:1])),
        ("films_good_or_bad", of_an_item(lambda scores: [*scores, -1.0])),
        ("films_good_or_bad", of_an_item(lambda scores: [float("nan"), scores[1]])),
        ("films_good_or_bad", of_an_item(lambda scores: [-float("inf"), scores[1]])),
        ("films_good_or_bad", of_an_item(lambda scores: [None, scores[1]])),
        ("films_good_or_bad", of_an_item(lambda scores: "x")),
        ("films_good_or_bad", lambda content: content["predictions"].pop()),
        ("films_good_or_bad", lambda content: content.update(predictions={"x": 1})),
        ("films_good_or_bad", of_an_item(lambda scores: scores[::-1])),
        ("films_say_it", of_an_item(lambda text: f"{text} edited")),
        ("films_say_it", of_an_item(lambda text: ["x"])),
        ("films_say_it", of_an_item(lambda text: None)),
    ],
)
def test_changed_predictions_are_computed_again(
    run: Path,
    suite: Path,
    tmp_path: Path,
    task: str,
    damage: Callable[[dict[str, Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = evaluated(tmp_path / "out", run, suite, limit=5)
    [path] = (tmp_path / "out" / "predictions").glob(f"*/{task}-*.json")
    right = json.loads(path.read_text())
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert evaluated(tmp_path / "out", run, suite, limit=5) == whole
    assert json.loads(path.read_text()) == right
    said = f"{path} is damaged or was edited: its predictions are computed again."
    assert capsys.readouterr().err.splitlines().count(said) == 1


def test_answers_of_other_weights_are_not_believed(run: Path, suite: Path, tmp_path: Path) -> None:
    """The file of the first step's weights, put in the place of that of the second's."""
    whole = evaluated(tmp_path / "out", run, suite, limit=5)
    other = evaluated(tmp_path / "other", run / "checkpoints" / "step-00000001", suite, limit=5)
    assert other["files"]["scores.parquet"] != whole["files"]["scores.parquet"]
    for path in (tmp_path / "out" / "predictions").glob("*/*.json"):
        [foreign] = (tmp_path / "other" / "predictions").glob(f"*/{path.name}")
        path.write_bytes(foreign.read_bytes())
    assert evaluated(tmp_path / "out", run, suite, limit=5) == whole


def test_answers_of_another_scorer_or_backend_are_asked_for_again(
    run: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> int:
        evaluated(tmp_path / "out", run, suite, limit=5)
        return len(list((tmp_path / "out" / "predictions").glob("*/*.json")))

    assert files() == files() == 4
    monkeypatch.setattr(prediction_cache, "SCORER_VERSION", prediction_cache.SCORER_VERSION + 1)
    assert files() == 8
    monkeypatch.setattr(T5, "backend", lambda *_, **__: "eager")
    assert files() == 11  # the texts are written by transformers' own


def test_a_run_is_known_by_recipe_and_seed_wherever_it_lies(run: Path, suite: Path, tmp_path: Path) -> None:
    """All runs of one configuration share its name; a longer or moved run is the same one."""
    evaluated(tmp_path / "out", run, suite, limit=2)
    copy = shutil.copytree(run, tmp_path / "moved")
    resolved = copy / "config.resolved.yaml"
    text = resolved.read_text()
    resolved.write_text(text.replace("steps: 2\n", "steps: 7\n"))
    assert resolved.read_text() != text
    evaluated(tmp_path / "out", copy / "checkpoints" / "step-00000001", suite, limit=2)
    resolved.write_text(text.replace("seed: 0\n", "seed: 1\n"))
    assert resolved.read_text() != text
    with pytest.raises(UserError, match=r"another model that is called 'small', too"):
        evaluated(tmp_path / "out", copy, suite, limit=2)


def test_a_folder_has_one_name_however_it_is_written() -> None:
    folders = {
        ModelReference.of(model).results_folder("s") for model in ("exp/one", "./exp/one", "exp/one/", "exp//one")
    }
    assert folders == {Path("eval/exp--one/s")}


def test_the_configuration_of_a_run_is_read_once(
    run: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    open_file = Path.open

    def record(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", record)
    evaluate(run, suite, limit=1, out=tmp_path / "out")
    assert opened.count(run / "config.resolved.yaml") == 1


def test_fingerprint_tells_weights_apart() -> None:
    assert fingerprint(small_model(320)) == fingerprint(small_model(320))
    changed = small_model(320)
    changed.shared.weight.data[5, 7] += 1e-3
    assert len({fingerprint(small_model(320)), fingerprint(small_model(320, seed=1)), fingerprint(changed)}) == 3


def test_one_evaluates_into_a_folder_at_a_time_and_removes_what_a_killed_one_left(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    left = killed_while_writing(out / "results.json", out / "predictions/a.json", out / "step-00000001/results.json")
    document = after_waiting(out / ".lock", lambda: evaluated(out, run, run.parent / "suite.yaml", limit=2), capsys)
    assert [task["dataset"] for task in document["tasks"]] == ["films"]
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(run: Path, suite: Path, tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one", run, suite)
    two = evaluated(tmp_path / "two", run, suite, processes=2)
    assert two == one
    first, second = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("one", "two"))
    assert first.drop_columns("scores").equals(second.drop_columns("scores"))
    values = [table["scores"].combine_chunks().flatten().to_numpy() for table in (first, second)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)


@pytest.mark.slow
def test_an_error_in_a_process_is_the_same_message(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for path in copy.glob("checkpoints/step-*/state/*.distcp"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        evaluated(tmp_path / "out", copy, run.parent / "suite.yaml", processes=2)


def test_a_process_that_dies_is_named_and_leaves_what_was_answered(run: Path, suite: Path, tmp_path: Path) -> None:
    def kill_one() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.02)
        time.sleep(1)  # else it is killed before the pool knows it
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    with pytest.raises(UserError, match=r"one of the 2 processes died.*--nproc"):
        evaluated(tmp_path / "out", run, suite, processes=2)
    assert evaluated(tmp_path / "out", run, suite)["tasks"]


def test_results_say_what_is_not_held_out(run: Path, suite: Path, tmp_path: Path) -> None:
    assert evaluated(tmp_path / "trained", run, suite, limit=5)["not_held_out"] == {
        "films": {"kind": "dataset", "sentence": "films is not held out: other records of it are trained on"}
    }
    assert evaluated(tmp_path / "untrained", run, suite, limit=5, untrained=True)["not_held_out"] == {}


def test_the_best_checkpoint_is_selected(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that is right with the first step's weights and wrong with the second's."""
    copy = shutil.copytree(run, tmp_path / "run")
    rank = rank_tokens
    first = fingerprint(open_model(str(copy / "checkpoints" / "step-00000001")).model)
    assert open_model(copy).facts.step == 2

    def by_weights(model: Any, items: Any, **options: Any) -> list[np.ndarray]:
        sign = 1.0 if fingerprint(model) == first else -1.0
        return [sign * np.array([0.0, 1.0, -1.0][: len(choices)]) for _, choices in items]

    monkeypatch.setattr("t0train.evals.rank.rank_tokens", by_weights)
    suite = copy.parent / "suite.yaml"
    suite.write_text("name: choose\ntasks:\n  - {dataset: films, prompts: [good or bad]}\n  - {dataset: imdb}\n")
    model = ModelReference.of(copy)
    config = EvalConfig.for_model(model, str(suite))
    selection = select_checkpoint(model, config)
    # two of three records are good (choice 1), as films.RECORDS says
    found: list[tuple[int, Any]] = [(one.step, one.score) for one in selection.candidates]
    assert found == [
        (1, pytest.approx(2 / 3)),
        (2, pytest.approx(1 / 3)),
    ]
    assert (selection.step, selection.source, selection.seed) == (1, str(run.parent / "data"), 0)
    assert selection.limit is None
    assert set(selection.left_out) == {"imdb"}
    assert open_model(copy).facts.step == 1
    assert open_model(str(copy)).facts.selected
    assert find_weights(copy, step=2).name == "step-00000002"
    written = json.loads((copy / "eval" / "choose" / "selection.json").read_text())
    assert written["step"] == 1
    assert json.loads((copy / "eval" / "choose" / "results.json").read_text())["model"]["step"] == 1
    monkeypatch.setattr("t0train.evals.rank.rank_tokens", Counter(rank, most=0))  # all has been answered
    training = replace(config, suite=config.suite.model_copy(update={"tasks": config.suite.tasks[:1]}))
    assert evaluate_into(model.results_folder("choose"), model, training).model.step == 1


def test_every_entry_of_a_dataset_counts(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first choice is right in records 0, 3, 6, ...: in one of records 0 to 2, in half of records 0 and 1."""
    copy = shutil.copytree(run, tmp_path / "run")
    suite = copy.parent / "suite.yaml"
    ranked = "prompts: [good or bad]"
    suite.write_text(
        "name: parts\ntasks:\n"
        f"  - {{dataset: films, split: 'validation[:3]', {ranked}}}\n"
        f"  - {{dataset: films, split: 'validation[:2]', {ranked}}}\n"
        "  - {dataset: films, split: 'validation[:2]', kind: generate, metrics: [exact_match], max_new_tokens: 2}\n"
    )
    first = lambda model, items, **_: [-np.arange(len(choices), dtype=float) for _, choices in items]  # noqa: E731
    monkeypatch.setattr("t0train.evals.rank.rank_tokens", first)
    model = ModelReference.of(copy)
    config = EvalConfig.for_model(model, str(suite))
    selection = select_checkpoint(model, config)
    for one in selection.candidates:
        assert one.medians == {
            "films validation[:3], ranked": pytest.approx(1 / 3),
            "films validation[:2], ranked": pytest.approx(1 / 2),
            "films validation[:2], generated": 0,
        }
        assert one.score == pytest.approx((1 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{dataset: films, split: 'train[:10]'}", "records that the run trains on"),
        ("{dataset: films, split: 'train[:10]'}\n  - {dataset: films}", "records that the run trains on"),
        ("{dataset: imdb}", "held-out data must not choose"),
    ],
)
def test_selection_never_touches_held_out_data(run: Path, tmp_path: Path, task: str, message: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"name: bad\ntasks:\n  - {task}\n")
    config = EvalConfig.for_model(ModelReference.of(run), str(tmp_path / "suite.yaml"))
    with pytest.raises(UserError, match=message):
        select_checkpoint(ModelReference.of(run), config)
    with pytest.raises(UserError, match="run folder"):
        select_checkpoint(ModelReference.of(run / "checkpoints" / "step-00000001"), config)


def test_a_selection_ends_when_training_goes_on(tmp_path: Path) -> None:
    def checkpoint(step: int) -> Path:
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        return folder

    folders = [checkpoint(step) for step in (10, 20, 30)]
    assert RunFolder(tmp_path).selected_step() is None
    RunFolder(tmp_path).select(20, "s")
    assert find_weights(tmp_path) == folders[1]
    fourth = checkpoint(40)
    assert RunFolder(tmp_path).selected_step() is None
    assert find_weights(tmp_path) == fourth
    RunFolder(tmp_path).select(10, "s")
    assert find_weights(tmp_path) == folders[0]
    shutil.rmtree(folders[0])
    assert find_weights(tmp_path) == fourth
    (tmp_path / "checkpoints" / "selected.json").write_text("{")
    assert find_weights(tmp_path) == fourth
