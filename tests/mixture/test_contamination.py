"""What is trained on must not be judged as if it were held out."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from t0train.config import RunConfig, SuiteConfig, load_config, load_suite
from t0train.core.errors import UserError
from t0train.mixture import dataset_identity, find_leaks, find_overlaps, load_mixture
from t0train.mixture.assemble import build_mixture
from t0train.mixture.contamination import Leak, check_leaks, describe_leaks, leak_notes, refuse_leaks
from t0train.mixture.dataset_identity import is_same
from t0train.results import OverlapReport
from t0train.results.results_json import NotHeldOut
from t0train.tasks import Dataset, load_catalogue
from tests.mixture.conftest import Collection


def suite(**splits: str) -> SuiteConfig:
    return SuiteConfig.model_validate(
        {"name": "s", "tasks": [{"dataset": key.replace("__", "/"), "split": split} for key, split in splits.items()]}
    )


@pytest.mark.parametrize(
    ("scored", "trained", "kind"),
    [
        ("train[:100]", "train", "records"),
        ("train[:100]", "train[100:]", "dataset"),
        ("train[:100]", "train[99:]", "records"),
        ("test", "train", "dataset"),
    ],
)
def test_rows_and_datasets(collection: Collection, scored: str, trained: str, kind: str) -> None:
    mixture = collection.mixture(include=["pets"])
    (leak,) = find_leaks(mixture, suite(pets=scored), {"pets": trained})
    assert (leak.dataset, leak.kind) == ("pets", kind)


def test_family(collection: Collection) -> None:
    catalogue = load_catalogue(collection.folder / "catalogue.csv")
    (leak,) = find_leaks(collection.mixture(), suite(exam="train"), {}, catalogue)
    assert (leak.kind, leak.trained) == ("family", ("tales",))
    assert str(leak) == "exam: no records of it are trained on, but its family is (tales)"
    assert not find_leaks(collection.mixture(exclude=["story"]), suite(exam="train"), {}, catalogue)


@pytest.mark.parametrize(
    "trained",
    [
        "mine,,Rowan/hellaswag,",
        "mine,,rowan/HellaSwag,",
        "mine,,Rowan/hellaswag,default",
        "mine,,hellaswag,",  # as on the hub before it had owners
        "mine,,HellaSwag,",
        "hellaswag,,,",  # a local copy: nothing is known but its name
        "Hellaswag,,,",
    ],
)
@pytest.mark.parametrize("judged", ["hellaswag", "HellaSwag", "Rowan/hellaswag", "rowan/Hellaswag"])
def test_another_spelling_hides_nothing(trained: str, judged: str, collection: Collection) -> None:
    path = collection.folder / "catalogue.csv"
    path.write_text(f"train_size,name,subset,hub_id,hub_config\n9,{trained}\n")
    name = trained.partition(",")[0]
    (collection.folder / "templates" / "pets").rename(collection.folder / "templates" / name)
    (leak,) = find_leaks(collection.mixture(), suite(**{judged: "train"}), {})
    assert (leak.dataset, leak.kind, leak.trained) == (judged, "records", (name,))
    assert f"as {name}" in str(leak) or name == judged


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Dataset("glue", "mrpc", hub_id="nyu-mll/glue", hub_config="mrpc"), Dataset("GLUE", "MRPC"), True),
        (Dataset("glue", "mrpc", hub_id="nyu-mll/glue", hub_config="mrpc"), Dataset("glue/mrpc"), True),
        (Dataset("glue", "mrpc"), Dataset("mine", hub_id="nyu_mll/glue", hub_config="mrpc"), True),
        (Dataset("mine", hub_id="org/big-set"), Dataset("his", hub_id="Org/Big_Set", hub_config="default"), True),
        (Dataset("mine", hub_id="org/set"), Dataset("his", hub_id="org/set", hub_config="the_only_one"), True),
        (Dataset("glue", "mrpc", hub_id="nyu-mll/glue", hub_config="mrpc"), Dataset("glue", "qqp"), False),
        (Dataset("a", hub_id="one/set"), Dataset("b", hub_id="two/set"), False),
        (Dataset("a"), Dataset("b"), False),
    ],
)
def test_names_of_one_dataset(one: Dataset, other: Dataset, expected: bool) -> None:
    assert is_same(one, other) is is_same(other, one) is expected


def test_no_two_datasets_of_the_catalogue_are_one() -> None:
    datasets = list(load_catalogue().values())
    same = {(a.key, b.key) for a, b in combinations(datasets, 2) if is_same(a, b)}
    assert same == set(combinations(("anli/r1", "anli/r2", "anli/r3"), 2))  # one repository, told apart by splits


def put(collection: Collection, path: str, rows: str) -> None:
    """Write a file below the folder of rows."""
    file = collection.folder / "rows" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(rows)


@pytest.mark.parametrize(
    ("scored", "trained", "kind"),
    [
        ("test", "train", "records"),  # the very file, under another name
        ("test[:1]", "train[1:]", "dataset"),
        ("validation", "train", "dataset"),  # another split of the same folder
    ],
)
def test_a_renamed_copy_is_found(scored: str, trained: str, kind: str, collection: Collection) -> None:
    put(collection, "pets/default/train.jsonl", '{"text": "the cat"}\n{"text": "the dog"}\n')
    put(collection, "copied/default/test.jsonl", '{"text": "the cat"}\n{"text": "the dog"}\n')
    put(collection, "copied/default/validation.jsonl", '{"text": "the emu"}\n{"text": "the fox"}\n')  # of equal size
    mixture, source = collection.mixture(include=["pets"]), str(collection.folder / "rows")
    (leak,) = find_leaks(mixture, suite(copied=scored), {"pets": trained}, None, source)
    assert (leak.dataset, leak.kind, leak.trained) == ("copied", kind, ("pets",))
    assert find_leaks(mixture, suite(copied=scored), {"pets": trained}) == []  # the hub: names only
    elsewhere = suite(copied=scored).model_copy(update={"data": str(collection.folder)})
    assert find_leaks(mixture, elsewhere, {"pets": trained}, None, source) == []


def test_a_validation_file_that_is_the_training_file_is_found(collection: Collection) -> None:
    for split in ("train", "validation"):
        put(collection, f"pets/default/{split}.jsonl", '{"text": "the cat"}\n')
    mixture = collection.mixture(include=["pets"])
    (leak,) = find_leaks(mixture, suite(pets="validation"), {}, None, str(collection.folder / "rows"))
    assert leak.kind == "records"


def test_only_files_of_equal_sizes_are_read(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def note(paths: Sequence[Path]) -> str:
        read.extend(paths)
        return str(paths)

    monkeypatch.setattr(dataset_identity, "content_identity", note)
    put(collection, "pets/default/train.jsonl", '{"text": "the cat"}\n')
    put(collection, "copied/default/test.jsonl", '{"text": "another cat"}\n')
    put(collection, "empty/default/test.jsonl", "")
    mixture, source = collection.mixture(include=["pets"]), str(collection.folder / "rows")
    assert find_leaks(mixture, suite(copied="test", pets="test", empty="test"), {"pets": "dev"}, None, source) != []
    assert read == []


def test_t0_keeps_its_held_out_sets_and_t0pp_gives_some_up(promptsource_folder: Path) -> None:
    held_out = suite(super_glue__rte="validation", hellaswag="validation", super_glue__wic="validation")
    assert find_leaks(load_mixture("t0"), held_out, {}) == []
    leaks = find_leaks(load_mixture("t0pp"), held_out, {})
    assert [(leak.dataset, leak.kind) for leak in leaks] == [("hellaswag", "dataset"), ("super_glue/wic", "dataset")]


LEAKS = {kind: Leak("judged", kind, ("trained",)) for kind in ("records", "dataset", "family")}


@pytest.mark.parametrize(
    ("held_out", "refused"),
    [("families", {"records", "dataset", "family"}), ("datasets", {"records", "dataset"}), ("records", {"records"})],
)
def test_what_is_held_out_decides_what_stops_a_run(held_out: str, refused: set[str]) -> None:
    for kind, leak in LEAKS.items():
        if kind in refused:
            with pytest.raises(UserError, match="judged") as error:
                refuse_leaks([leak], held_out)
            assert ("leaks.held_out=" in str(error.value)) == (kind != "records")
        else:
            assert refuse_leaks([leak], held_out) == [leak]


def test_the_message_names_the_setting_that_lets_the_run_start() -> None:
    for leaks in ([LEAKS["family"]], [LEAKS["dataset"]], [LEAKS["family"], LEAKS["dataset"]]):
        with pytest.raises(UserError, match=r"leaks\.held_out=") as error:
            refuse_leaks(leaks, "families")
        advised = str(error.value).rpartition("leaks.held_out=")[2].split(")")[0]
        assert refuse_leaks(leaks, advised) == leaks


@pytest.mark.parametrize(
    ("run", "trained"),
    [
        ("t0", set()),
        ("t0_3b", set()),
        ("t0p", {"hellaswag"}),
        ("t0pp", {"hellaswag", "super_glue/copa", "super_glue/wic", "super_glue/wsc.fixed"}),
    ],
)
def test_the_runs_of_the_paper_start_and_say_what_they_give_up(
    run: str, trained: set[str], promptsource_folder: Path
) -> None:
    """The model card: T0+ was trained on HellaSwag, T0++ on SuperGLUE except NLI. Their families go with them."""
    config = load_config(run)
    assert config.suite == "t0_heldout"
    leaks = check_leaks(load_mixture(config.mixture.name), config)
    assert {leak.dataset for leak in leaks if leak.kind == "dataset"} == trained
    families = {leak.dataset for leak in leaks} - trained
    assert families == {"t0p": {"super_glue/copa", "story_cloze/2016"}}.get(
        run, {"story_cloze/2016", "winogrande/winogrande_xl"} if run == "t0pp" else set()
    )


def test_the_other_runs_say_what_they_hold_out(promptsource_folder: Path) -> None:
    for name in ("real_small", "real_short"):
        config = load_config(name)
        mixture = load_mixture("t0")
        leaks = find_leaks(mixture, load_suite(config.suite), config.data.splits)
        assert {leak.kind for leak in leaks} == {"dataset"}
        assert refuse_leaks(leaks, config.leaks.held_out) == leaks


def test_families_share_one_note() -> None:
    leaks = [Leak("a", "family", ("x",)), Leak("b", "dataset", ("b",)), Leak("c", "family", ("y",))]
    first, second = leak_notes(describe_leaks(leaks))
    assert first == str(leaks[1])
    assert second == "a, c: no records of them are trained on, but their families are"
    assert leak_notes(describe_leaks(leaks[:1])) == [str(leaks[0])]


def test_the_gravest_of_a_datasets_leaks_is_said() -> None:
    """It is evaluated twice: on rows that are trained on, and on others."""
    leaks = [Leak("a", "records", ("a",)), Leak("a", "dataset", ("a",))]
    assert (
        describe_leaks(leaks)
        == describe_leaks(leaks[::-1])
        == {"a": NotHeldOut(kind="records", sentence=str(leaks[0]))}
    )


def write(collection: Collection, key: str, split: str, texts: list[str]) -> None:
    path = collection.folder / "rows" / key / "default" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": 0, "id": "same " * 20}) + "\n" for text in texts))


def compare(collection: Collection, *datasets: str, **leaks: Any) -> OverlapReport:
    run = RunConfig.model_validate(
        {
            "mixture": {"name": "catalogue", "include": ["pets", "tales"]},
            "data": collection.data().model_dump(),
            "leaks": leaks,
        }
    )
    suite = SuiteConfig.model_validate(
        {"name": "s", "tasks": [{"dataset": dataset, "split": "validation"} for dataset in datasets]}
    )
    return find_overlaps(build_mixture(run.mixture, run.data), suite, run)


def test_by_hand(collection: Collection) -> None:
    """3-grams. Row 0 has abc bcd cde, of which a training row holds bcd; row 1 all of its two; row 2 is too short."""
    write(collection, "pets", "train", ["z B, c d. z", "x y"])
    write(collection, "tales", "train", ["z z z", "k L (m) n"])
    write(collection, "exam", "validation", ["a b c d e", "K l m n!", "x y", "o p q"])
    report = compare(collection, "exam", ngram=3, threshold=0.5)
    (found,) = report.overlaps
    assert (found.records, found.short, found.touched, found.overlapping) == (4, 1, 2, 1)
    assert found.sources == {"pets": 1, "tales": 1}
    examples = [
        (text.record, text.share, text.words, text.trained_dataset, text.trained_record) for text in found.examples
    ]
    assert examples == [(1, 1.0, "k l m", "tales", 1), (0, pytest.approx(1 / 3), "b c d", "pets", 0)]
    assert report.not_compared == {}


def test_equals_python_sets_on_random_texts(collection: Collection) -> None:
    draw = random.Random(0)
    rows = {
        key: [" ".join(draw.choices(["a", "b", "c", "d"], k=draw.randint(1, 12))) for _ in range(number)]
        for key, number in (("pets", 1500), ("tales", 40), ("exam", 60))
    }
    write(collection, "pets", "train", rows["pets"])
    write(collection, "tales", "train", rows["tales"])
    write(collection, "exam", "validation", rows["exam"])

    def grams(text: str) -> list[str]:
        words = re.findall(r"\w+", text)
        return [" ".join(words[k : k + 6]) for k in range(len(words) - 5)]

    trained = {key: {gram for text in rows[key] for gram in grams(text)} for key in ("pets", "tales")}
    everything = trained["pets"] | trained["tales"]
    shares = [sum(g in everything for g in grams(text)) / len(grams(text)) for text in rows["exam"] if grams(text)]
    (found,) = compare(collection, "exam", ngram=6, threshold=0.6).overlaps
    assert found.short == sum(not grams(text) for text in rows["exam"]) > 0
    assert found.touched == sum(share > 0 for share in shares)
    assert found.overlapping == sum(share >= 0.6 for share in shares) < found.touched
    assert found.sources == {
        key: sum(any(gram in grams_of for gram in grams(text)) for text in rows["exam"])
        for key, grams_of in trained.items()
    }


def test_what_is_not_at_hand_is_said(collection: Collection) -> None:
    write(collection, "pets", "train", ["a b c d"])
    write(collection, "exam", "validation", ["a b c d"])
    report = compare(collection, "exam", "cars/old", "nothing", ngram=3)
    assert [found.dataset for found in report.overlaps] == ["exam"]
    assert set(report.not_compared) == {"cars/old", "nothing", "tales"}
    assert report.not_compared["tales"].startswith("no folder ")  # the name stands beside it already
    assert compare(collection, "cars/old").overlaps == ()


def test_big_bench_is_not_compared_and_that_is_said(collection: Collection) -> None:
    write(collection, "pets", "train", ["a b c d"])
    mixture = {"name": "catalogue", "include": ["pets"]}
    run = RunConfig.model_validate({"mixture": mixture, "data": collection.data().model_dump()})
    suite = SuiteConfig.model_validate({"name": "s", "tasks": [{"dataset": "winowhy", "kind": "bigbench"}]})
    report = find_overlaps(build_mixture(run.mixture, run.data), suite, run)
    assert report.not_compared == {"winowhy": "the examples of BIG-bench are not compared"}


def test_columns_that_no_template_reads_do_not_count(collection: Collection, tmp_path: Path) -> None:
    """The column id is the same twenty words in every row."""
    write(collection, "pets", "train", ["a b c d"])
    write(collection, "tales", "train", ["a b c d"])
    write(collection, "exam", "validation", ["e f g h"])
    assert compare(collection, "exam", ngram=3).overlaps[0].touched == 0
