"""Mixture files, patterns, prompts, scales, missing rows: on a small collection with figures worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from t0train.core.errors import UserError
from t0train.mixture import Mixture, by_dataset, check_sources
from tests.mixture.conftest import Collection


def rates(mixture: Mixture) -> dict[str, float]:
    return {task.name: rate for task, rate in zip(mixture.tasks, mixture.rates.tolist(), strict=True)}


def test_a_users_own_datasets_without_the_held_out_one(collection: Collection) -> None:
    """600,000 examples are above the limit: 500,000 // 4 templates."""
    assert rates(collection.mixture()) == {
        **{"cars_new_four": 125_000, "cars_new_one": 125_000, "cars_new_three": 125_000, "cars_new_two": 125_000},
        **{"cars_old_one": 400_000, "cars_old_two": 400_000},
        **{"pets_a_ask": 1_000, "pets_b_ask": 1_000, "pets_c_free": 1_000, "tales_tell": 300},
    }


def test_the_cap_divides_by_all_templates_even_if_one_is_used(collection: Collection) -> None:
    mixture = collection.mixture(include=["cars_new_one", "cars/old"])
    assert rates(mixture) == {"cars_new_one": 125_000, "cars_old_one": 400_000, "cars_old_two": 400_000}
    assert mixture.templates == {"cars/new": 4, "cars/old": 2}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rate": "proportional"}, {"cars/new": 2_400_000, "cars/old": 800_000, "pets": 3_000, "tales": 300}),
        ({"rate": "equal"}, {"cars/new": 4, "cars/old": 2, "pets": 3, "tales": 1}),
        ({"rate": "temperature", "temperature": 2, "cap": 10_000}, {"cars/new": 400, "cars/old": 200}),
        ({"cap": 200}, {"cars/new": 200, "cars/old": 200, "pets": 198, "tales": 200}),
        ({"scale": {"topic": 0.5, "pets": 4}}, {"cars/new": 250_000, "cars/old": 400_000, "pets": 6_000, "tales": 300}),
        ({"prompts": "one"}, {"cars/old": 400_000, "pets": 1_000, "tales": 300}),
        ({"prompts": "original"}, {"cars/old": 400_000, "pets": 2_000, "tales": 300}),
        ({"prompts": 2}, {"cars/new": 250_000, "cars/old": 800_000, "pets": 2_000, "tales": 300}),
        ({"exclude": ["cars/*", "*_free"]}, {"pets": 2_000, "tales": 300}),
        ({"include": ["story", "pets"], "exclude": ["tales_tell"]}, {"pets": 3_000}),
    ],
)
def test_changes(collection: Collection, keys: dict[str, Any], expected: dict[str, float]) -> None:
    table = by_dataset(collection.mixture(**keys).table())
    sums = {f"{row.dataset}/{row.subset}".rstrip("/"): row.rate_sum for row in table}
    assert {key: sums[key] for key in expected} == pytest.approx(expected)
    assert "temperature" in keys or sums.keys() == expected.keys()


def test_probabilities_are_rates_over_their_sum(collection: Collection) -> None:
    mixture = collection.mixture(include=["pets", "tales"])
    np.testing.assert_allclose(mixture.probabilities, [1000 / 3300, 1000 / 3300, 1000 / 3300, 300 / 3300])
    assert mixture.weights() == pytest.approx({"pets": 3000 / 3300, "tales": 300 / 3300})


def test_k_prompts_are_drawn_by_the_seed_and_nested(collection: Collection) -> None:
    def drawn(k: int, seed: int) -> set[str]:
        return set(rates(collection.mixture(prompts_seed=seed, prompts=k, include=["cars/new"])))

    assert all(len(drawn(k, 0)) == min(k, 4) for k in (1, 2, 3, 9))
    assert all(drawn(1, seed) < drawn(2, seed) < drawn(3, seed) for seed in range(8))
    assert set.union(*(drawn(1, seed) for seed in range(40))) == drawn(4, 0)
    assert drawn(2, 5) == drawn(2, 5)


def test_name_and_hash_follow_the_sampling(collection: Collection) -> None:
    plain, again = collection.mixture(), collection.mixture()
    assert (plain.hash, plain.name) == (again.hash, "catalogue")
    changed = [
        collection.mixture(exclude=["tales"]),
        collection.mixture(scale={"tales": 2}),
        collection.mixture(rate="equal"),
        collection.mixture(prompts="original"),
    ]
    assert len({mixture.hash for mixture in [plain, *changed]}) == 5
    assert all(mixture.name == f"catalogue-{mixture.hash[:8]}" for mixture in changed)
    path = collection.folder / "templates/tales/templates.yaml"
    path.write_text(path.read_text().replace("tell: {{", "tell me: {{"))
    assert collection.mixture().hash != plain.hash  # another text is another mixture


def test_a_mixture_file_in_five_lines(collection: Collection) -> None:
    path = collection.put_mixture(
        "description: no stories\nbase: catalogue\nexclude: [story]\nprompts: one\nrate: equal\nscale: {pets: 3}\n"
    )
    assert rates(collection.mixture(path)) == {"cars_old_one": 1, "pets_a_ask": 3}
    assert collection.mixture(path).name == "mine"
    pets = collection.mixture(path, prompts="all", rate="proportional", include=["pets"])
    assert rates(pets) == {"pets_a_ask": 3_000, "pets_b_ask": 3_000, "pets_c_free": 3_000}
    other = collection.put_mixture("base: mine.yaml\nprompts: original\nscale: {topic: 2}\n", "other")
    assert rates(collection.mixture(other)) == {"cars_old_one": 2, "pets_a_ask": 6, "pets_b_ask": 6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: catalogue\nstages: [BASE]\n", "not both"),
        ("description: nothing\n", "either `base`"),
        ("base: t0q\n", "did you mean 't0'"),
        ("base: loop.yaml\n", "based on itself"),
        ("stages: [EVAL]\n", "stages.0: found 'EVAL'"),
        ("base: catalogue\nexlude: [story]\n", "did you mean 'exclude'"),
        ("base: catalogue\nprompts: 0\n", "prompts"),
        ("base: catalogue\nrate: sqrt\n", "rate: found 'sqrt'"),
        ("base: catalogue\nscale: {pets: 0}\n", "greater than or equal to 0.000001"),
        ("base: [\n", "not valid YAML"),
        ("base: catalogue\nexclude: [storys]\n", "did you mean 'story'"),
        ("base: catalogue\ninclude: [exam]\n", "'exam' fits no"),
        ("base: catalogue\nscale: {dogs: 2}\n", "mixture.scale: 'dogs' fits no"),
        ("base: catalogue\ninclude: [cars/new]\nprompts: one\n", "holds no task"),
        ("base: catalogue\ncap: 3\n", "the rate of cars/new is 0"),
    ],
)
def test_bad_mixture_files_are_refused(collection: Collection, text: str, message: str) -> None:
    path = collection.put_mixture(text, "loop")
    with pytest.raises(UserError) as error:
        collection.mixture(path)
    assert message in str(error.value)


def test_other_bad_input_is_refused(collection: Collection) -> None:
    with pytest.raises(UserError, match="did you mean 't0p'"):
        collection.mixture("t0pq")
    with pytest.raises(UserError, match=r"data.catalogue, which is empty"):
        collection.mixture(data=collection.data(catalogue=""))
    with pytest.raises(UserError, match=r"data.splits names 'pet'.*did you mean 'pets'"):
        collection.mixture(data=collection.data(splits={"pet": "test"}))
    with pytest.raises(UserError, match="templates"):
        collection.mixture(data=collection.data(templates=[]))
    (collection.folder / "catalogue.csv").write_text("name\npets\n")
    with pytest.raises(UserError, match="needs the size of pets"):
        collection.mixture()
    assert len(collection.mixture(rate="equal").tasks) == 3


def test_two_templates_with_one_task_name_are_refused(collection: Collection) -> None:
    path = collection.folder / "templates/pets/templates.yaml"
    path.write_text(path.read_text().replace("name: b ask", "name: a-ask"))
    with pytest.raises(UserError, match="the same task name 'pets_a_ask'"):
        collection.mixture()


def test_missing_rows_are_listed_with_their_weight(collection: Collection) -> None:
    collection.put_rows(pets=5, tales=300)
    mixture = collection.mixture(exclude=["cars/old"])
    report = check_sources(mixture, collection.data())
    assert [(table.dataset.key, table.split) for table in report.missing] == [("cars/new", "train")]
    assert report.lost == pytest.approx(500_000 / 503_300)
    assert report.records == {"pets": 5, "tales": 300}
    with pytest.raises(UserError) as error:
        report.require()
    assert "1 of the 3 datasets" in str(error.value)
    assert "99.3% of its weight" in str(error.value)
    assert "data.missing=drop" in str(error.value)
    (remark,) = report.remarks
    assert "pets 5 < 1,000" in remark
    assert "tales" not in remark
    assert "the rates come from the catalogue" in remark


def test_missing_rows_can_be_dropped(collection: Collection) -> None:
    collection.put_rows(pets=5, tales=300)
    data = collection.data(missing="drop")
    mixture = collection.mixture(data=data)
    assert rates(mixture) == {"pets_a_ask": 1000, "pets_b_ask": 1000, "pets_c_free": 1000, "tales_tell": 300}
    assert mixture.probabilities.sum() == pytest.approx(1)
    (remark,) = mixture.remarks
    assert "cars/new, cars/old" in remark
    assert f"{1_300_000 / 1_303_300:.1%}" in remark
    assert mixture.name == f"catalogue-{mixture.hash[:8]}"
    assert check_sources(mixture, data).require().remarks[0] == remark
    with pytest.raises(UserError, match="holds no task"):
        collection.mixture(data=collection.data(missing="drop", source=str(collection.folder)))


def test_rates_from_the_available_records(collection: Collection) -> None:
    collection.put_rows(pets=5, tales=700)
    keys: dict[str, Any] = {"include": ["pets", "tales"], "rates_from": "records"}
    mixture = collection.mixture(**keys)
    assert rates(mixture) == {"pets_a_ask": 5, "pets_b_ask": 5, "pets_c_free": 5, "tales_tell": 700}
    assert "the rates come from the available records" in check_sources(mixture, collection.data()).remarks[0]
    sliced = collection.data(splits={"tales": "train[:10]"})
    assert rates(collection.mixture(data=sliced, **keys))["tales_tell"] == 10
    with pytest.raises(UserError, match="records are missing"):
        collection.mixture(rates_from="records")
    dropped = collection.mixture(data=collection.data(missing="drop"), rates_from="records")
    assert rates(dropped) == rates(mixture)


def test_templates_are_checked_against_the_columns(collection: Collection) -> None:
    collection.put_rows(pets=5, tales=300)
    path = collection.folder / "rows/tales/default/train.jsonl"
    path.write_text('{"texts": "a", "label": 1}\n')
    report = check_sources(collection.mixture(include=["pets", "tales"]), collection.data())
    assert len(report.problems) == 1
    with pytest.raises(UserError, match="did you mean 'texts'"):
        report.require()


def test_expected_epochs(collection: Collection) -> None:
    """100 steps of 66 examples are 6,600: twice the rate sum of 3,300, so two passes over every task."""
    mixture = collection.mixture(include=["pets", "tales"])
    table = mixture.table(steps=100, examples_per_step=66)
    assert [row.epochs for row in table] == pytest.approx([2, 2, 2, 2])
    shorter = mixture.table(steps=100, examples_per_step=66, records={"tales": 100})
    assert [row.epochs for row in shorter] == pytest.approx([2, 2, 2, 6])
    assert [row.records for row in shorter] == [None, None, None, 100]
    assert all(row.epochs is None for row in mixture.table())


def test_mean_tokens_of_a_dataset_weigh_its_tasks(collection: Collection) -> None:
    mixture = collection.mixture(include=["cars/old", "tales"], scale={"cars_old_two": 3})
    tokens = {"cars_old_one": (10.0, 2.0), "cars_old_two": (30.0, 6.0)}
    cars, tales = by_dataset(mixture.table(mean_tokens=tokens))
    assert (cars.templates, cars.rate, cars.rate_sum) == (2, 800_000, 1_600_000)
    assert (cars.mean_inputs, cars.mean_targets) == pytest.approx((25, 5))
    assert (tales.mean_inputs, tales.epochs) == (None, None)


def test_rates_beyond_floating_point_are_refused(collection: Collection) -> None:
    """Each factor is allowed; sixty of them multiply to 1e360."""
    patterns = ["?" * 4 + "*" * n for n in range(1, 61)]  # all fit `pets`
    with pytest.raises(UserError, match="the rate of pets_a_ask comes to inf"):
        collection.mixture(scale=dict.fromkeys(patterns, 1e6), rate="equal", include=["pets"])
    with pytest.raises(UserError, match="comes to 0, beyond"):
        collection.mixture(scale=dict.fromkeys(patterns, 1e-6), rate="equal", include=["pets"])


def test_tasks_that_are_never_drawn_are_remarked_on(collection: Collection) -> None:
    """The four templates of cars/new weigh 1e-12 of any other."""
    mixture = collection.mixture(rate="equal", scale={"cars/new": 1e-6, "cars/*": 1e-6, "cars/old": 1e6})
    assert [remark for remark in mixture.remarks if "once in a billion" in remark] == [
        f"4 of {len(mixture.tasks)} tasks are drawn less than once in a billion examples, e.g. cars_new_four: see "
        "mixture.scale and mixture.temperature"
    ]
    assert not collection.mixture(rate="equal").remarks
