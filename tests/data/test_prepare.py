from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from t0train.core.errors import UserError
from t0train.core.hashing import derive_seed
from t0train.data import (
    TaskTokens,
    load_vocabulary,
    open_folder,
    open_loader,
    open_task_tokens,
    prepare,
    prepare_tasks,
    verify_store,
)
from t0train.data import prepare as prepare_function
from t0train.mixture import build_mixture
from t0train.tasks import Task, load_catalogue, open_table
from tests.data.conftest import COLOURS, ROWS, Configure, colour_rows, story_rows, train_vocabulary, write_templates

prepare_module = __import__("importlib").import_module(prepare_function.__module__)


def opened(configure: Configure, **data: object) -> dict[str, TaskTokens]:
    run = configure(**data)
    return {prepared.task: open_folder(prepared.folder) for prepared in prepare(run, workers=1)}


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def test_tokens_are_those_of_the_rendered_rows(configure: Configure, vocabulary_file: Path) -> None:
    vocabulary = load_vocabulary(vocabulary_file)
    tokens = opened(configure)["colours_ask"]
    rows = colour_rows(ROWS)
    assert len(tokens) == ROWS
    for i in (0, 1, 2047, 2048, ROWS - 1):  # either side of a shard's end
        question = f"What colour is the {rows[i]['thing']}?"
        assert vocabulary.decode(tokens.inputs(i)) == question
        assert tokens.inputs(i)[-1] != vocabulary.eos_id
        assert tokens.targets(i).tolist() == [*vocabulary.encode(COLOURS[rows[i]["label"]]), vocabulary.eos_id]
        assert tokens.source_row(i) == i
        assert tokens.label(i) == rows[i]["label"]
        choices = tokens.choices(i)
        assert choices is not None
        assert [choice.tolist() for choice in choices] == [[*vocabulary.encode(name), 1] for name in COLOURS]
    assert tokens.input_lengths[2048] == len(tokens.inputs(2048))
    assert tokens.target_lengths[7] == len(tokens.targets(7))
    wanted = np.array([5, 2400, 5])
    assert [side.tolist() for side in tokens.lengths(wanted)] == [
        [len(tokens.inputs(i)) for i in wanted],
        [len(tokens.targets(i)) for i in wanted],
    ]


def test_dropped_rows_are_left_out_and_the_rest_keep_their_row(configure: Configure) -> None:
    tokens = opened(configure)["colours_only_blue"]
    blue = [i for i, row in enumerate(colour_rows(ROWS)) if row["label"] == 2]
    assert [tokens.source_row(i) for i in range(len(tokens))] == blue
    assert [tokens.label(i) for i in range(len(tokens))] == [0] * len(blue)
    assert (tokens.manifest["rows"], tokens.manifest["source_rows"]) == (len(blue), ROWS)


def test_open_tasks_have_no_choices_and_dynamic_ones_have_their_own(
    configure: Configure, vocabulary_file: Path
) -> None:
    vocabulary = load_vocabulary(vocabulary_file)
    tokens = opened(configure)
    assert tokens["colours_open"].choices(0) is None
    assert tokens["colours_open"].label(0) == -1
    for i, row in enumerate(story_rows(300)):
        choices = tokens["stories_pick"].choices(i)
        assert choices is not None
        assert [vocabulary.decode(choice) for choice in choices] == row["words"]
        assert tokens["stories_pick"].label(i) == 0


def test_random_templates_draw_by_seed_task_and_row(configure: Configure, vocabulary_file: Path) -> None:
    vocabulary = load_vocabulary(vocabulary_file)
    run = configure()
    task = next(task for task in build_mixture(run.mixture, run.data).tasks if task.name == "stories_tell")
    texts = {}
    for seed in (0, 1):
        (prepared,) = prepare_tasks(
            [task], lambda _: "train", run.data.source, vocabulary, Path(run.data.store), seed=seed
        )
        tokens = open_folder(prepared.folder)
        texts[seed] = [vocabulary.decode(tokens.inputs(i)) for i in range(300)]
        for i, row in enumerate(story_rows(300)):
            rendered = task.template.render(row, derive_seed(seed, task.name, i))
            assert rendered is not None
            assert texts[seed][i] == normal(rendered.input)
    assert texts[0] != texts[1]
    assert {text.split()[0] for text in texts[0]} == {"Tell", "Say", "Write"}


def test_any_number_of_processes_writes_the_same_files(configure: Configure, tmp_path: Path) -> None:
    digests = []
    for workers in (1, 2):
        run = configure(store=str(tmp_path / f"store{workers}"))
        prepared = prepare(run, workers)
        digests.append([hashlib.sha256((task.folder / "tokens.arrow").read_bytes()).hexdigest() for task in prepared])
    assert digests[0] == digests[1]
    assert not multiprocessing.active_children()


def test_a_second_run_does_nothing_and_a_damaged_task_is_made_again(configure: Configure) -> None:
    run = configure()
    first = prepare(run, 1)
    assert all(task.made for task in first)
    assert not any(task.made for task in prepare(run, 1))
    damaged = first[1].folder / "tokens.arrow"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    again = prepare(run, 1)
    assert [task.made for task in again] == [i == 1 for i in range(len(again))]
    assert damaged.read_bytes() == whole


def test_a_stopped_preparation_goes_on_where_it_was(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = prepare(configure(store=str(tmp_path / "straight")), 1)
    run = configure()
    real = prepare_module.make_shard
    calls = []

    def killed_at_the_third(shard: object) -> object:
        calls.append(shard)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(shard)

    monkeypatch.setattr(prepare_module, "make_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(run, 1)
    assert len(calls) == 3
    prepared = prepare(run, 1)
    assert len(calls) == 4  # of three shards (2,500 rows in two, 300 in one) only the third was left
    store = Path(run.data.store)
    assert [path.name for path in store.glob(".*")] == [".lock"]  # which stays, as another process may wait for it
    for here, there in zip(prepared, whole, strict=True):
        assert (here.folder / "tokens.arrow").read_bytes() == (there.folder / "tokens.arrow").read_bytes()


def test_untrimmed_ids_are_stored(configure: Configure) -> None:
    tokens = opened(configure, max_inputs=8, max_targets=4)["colours_open"]
    assert tokens.input_lengths.max() > 40


def test_a_row_whose_input_has_no_token_is_left_out(tmp_path: Path, source: Path, configure: Configure) -> None:
    folder = tmp_path / "rows" / "colours" / "default"
    folder.mkdir(parents=True)
    rows = [{"thing": "\u200b \u200b", "label": 0, "text": "x"}, {"thing": "sky", "label": 2, "text": "y"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_templates(tmp_path / "templates", "colours", [("bare", "{{ thing }} ||| {{ text }}", None)])
    run = configure(
        mixture={"include": ["colours"]},
        source=str(tmp_path / "rows"),
        templates=[str(tmp_path / "templates"), str(source / "templates")],
        store=str(tmp_path / "other"),
    )
    (prepared,) = prepare(run, 1)
    assert open_folder(prepared.folder).source_row(0) == 1
    assert (prepared.rows, prepared.source_rows) == (1, 2)


def test_a_template_that_drops_every_row_is_prepared_but_cannot_be_drawn(
    tmp_path: Path, source: Path, configure: Configure
) -> None:
    templates = tmp_path / "templates"
    write_templates(templates, "colours", [("never", "{% if label == 9 %}a ||| b{% endif %}", "b ||| c")])
    run = configure(templates=[str(templates), str(source / "templates")], mixture={"include": ["colours"]})
    (prepared,) = prepare(run, 1)
    assert prepared.rows == 0
    assert len(open_folder(prepared.folder)) == 0
    assert not prepare(run, 1)[0].made
    with pytest.raises(UserError, match=r"drops every row.*mixture\.exclude=\[colours_never\]"):
        open_loader(run)


def test_a_template_with_a_missing_column_stops_before_any_work(
    tmp_path: Path, source: Path, configure: Configure
) -> None:
    templates = tmp_path / "templates"
    write_templates(templates, "colours", [("fine", "{{ text }} ||| a", None), ("bad", "{{ txet }} ||| a", None)])
    run = configure(templates=[str(templates), str(source / "templates")], mixture={"include": ["colours"]})
    with pytest.raises(UserError, match=r"txet.*'text'"):
        prepare(run, 1)
    assert not Path(run.data.store).exists()


def test_missing_rows_are_listed_with_the_weight_they_have(configure: Configure, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "data" / "stories", tmp_path / "rows" / "stories")
    with pytest.raises(UserError, match=r"colours.*train"):
        prepare(configure(source=str(tmp_path / "rows")), 1)


def test_damage_is_found_when_the_store_is_opened(configure: Configure) -> None:
    run = configure()
    prepared = prepare(run, 1)
    tokens = prepared[0].folder / "tokens.arrow"
    whole = tokens.read_bytes()
    cases = {
        "bytes instead of": whole[:-100],
        "checksum": whole[:1000] + bytes([whole[1000] ^ 0x10]) + whole[1001:],
    }
    for message, content in cases.items():
        tokens.write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_folder(prepared[0].folder)
        with pytest.raises(UserError, match=message):
            open_loader(run)
        results = list(verify_store(Path(run.data.store)))
        assert [isinstance(result, UserError) for result in results].count(True) == 1
    tokens.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="bytes instead of"):
        open_folder(prepared[0].folder, verify=False)
    tokens.write_bytes(whole)
    for damaged in ("{", "[]", "{}"):
        (prepared[0].folder / "manifest.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            open_folder(prepared[0].folder)
    (prepared[0].folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        open_folder(prepared[0].folder)


def test_offsets_are_validated_even_if_the_manifest_agrees(configure: Configure) -> None:
    """A store of a stranger: its checksum is right, but an offset points beyond the ids."""
    folder = prepare(configure(), 1)[0].folder
    first = open_folder(folder)._inputs.offsets.tobytes()  # the bytes as they lie in the file
    content = (folder / "tokens.arrow").read_bytes()
    place = content.index(first)
    forged = content[: place + 8] + (2**40).to_bytes(8, "little") + content[place + 16 :]
    (folder / "tokens.arrow").write_bytes(forged)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256(forged).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"damaged.*[Oo]ffset"):
        open_folder(folder)


def test_another_vocabulary_or_source_does_not_match_the_store(
    configure: Configure, tmp_path: Path, source: Path
) -> None:
    run = configure()
    with pytest.raises(UserError, match=r"not prepared.*t0train data prepare"):
        open_loader(run)
    prepare(run, 1)
    open_loader(run)
    other = train_vocabulary(tmp_path / "other.model", extra=" zzz")
    with pytest.raises(UserError, match="prepared with another vocabulary"):
        open_loader(configure(vocabulary=str(other)))
    rows = tmp_path / "rows"
    shutil.copytree(source / "data", rows)
    with (rows / "stories" / "default" / "train.jsonl").open("a") as stream:
        stream.write(json.dumps(story_rows(1, seed=9)[0]) + "\n")
    with pytest.raises(UserError, match=r"stories_pick.*prepared with other source rows"):
        open_loader(configure(source=str(rows)))


def test_the_seed_matters_to_the_store_only_for_random_templates(configure: Configure) -> None:
    prepare(configure(), 1)
    made = {task.task for task in prepare(configure(seed=1), 1) if task.made}
    assert made == {"stories_tell"}


def test_real_rows_under_real_templates(
    real_data: Path, t5_vocabulary: Path, promptsource_folder: Path, tmp_path: Path
) -> None:
    from transformers import T5TokenizerFast

    from t0train.prompts import load_templates

    catalogue = load_catalogue()
    oracle = T5TokenizerFast.from_pretrained(str(t5_vocabulary.parent))
    vocabulary = load_vocabulary(t5_vocabulary)
    splits = {
        "trec": "train[:150]",
        "imdb": "test[:40]",
        "ag_news": "test[:100]",
        "xsum": "validation[:20]",
        "quail": "validation[:30]",
        "glue/mrpc": "validation[:40]",
        "super_glue/copa": "validation[:50]",
        "cos_e/v1.11": "validation[:30]",
    }
    tasks = [
        Task.of(catalogue[key], template)
        for key in splits
        for template in load_templates(catalogue[key].name, catalogue[key].subset or None).values()
    ]

    def split_of(task: Task) -> str:
        return splits[task.dataset.key]

    prepared = prepare_tasks(tasks, split_of, str(real_data), vocabulary, tmp_path / "store")
    assert len(prepared) > 70
    compared = 0
    for task in tasks:
        tokens = open_task_tokens(tmp_path / "store", task, split_of(task), vocabulary, str(real_data))
        rows = open_table(task.dataset, split_of(task), str(real_data)).records()
        for i in range(0, len(tokens), 7):
            row = tokens.source_row(i)
            rendered = task.template.render(rows[row], derive_seed(0, task.name, row))
            assert rendered is not None
            if any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in rendered.input):
                continue
            inputs, target = oracle([rendered.input, rendered.target], add_special_tokens=False)["input_ids"]
            assert tokens.inputs(i).tolist() == inputs
            assert tokens.targets(i).tolist() == [*target, 1]
            if 2 not in inputs:
                assert vocabulary.decode(tokens.inputs(i)) == normal(rendered.input)
                compared += 1
            if rendered.choices is not None:
                expected = rendered.choices.index(rendered.target) if rendered.target in rendered.choices else -1
                assert tokens.label(i) == expected
    assert compared > 250
