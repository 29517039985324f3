from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from t0train.core.errors import UserError
from t0train.prompts import list_datasets, load_templates, template_folder

YAML = """\
dataset: {dataset}
templates:
  5d0ad42e-0000-4000-8000-00000000000b: !Template
    answer_choices: yes ||| no
    id: 5d0ad42e-0000-4000-8000-00000000000b
    jinja: '{{{{text}}}} Good? ||| {{{{ answer_choices[label] }}}}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      metrics: [Accuracy, Other]
      original_task: true
    name: b second
    reference: ''
  5d0ad42e-0000-4000-8000-00000000000a: !Template
    answer_choices: null
    jinja: "Continue:\\n{{{{text}}}} ||| {{{{rest}}}}"
    name: a first
"""


@pytest.fixture
def no_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T0TRAIN_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.delenv("T0TRAIN_TEMPLATES", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "own"
    for place in ("reviews", "pairs/easy", "Zaid/talks", "someone/data/config"):
        write(root / place, YAML.format(dataset=place))
    return root


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "templates.yaml").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("no_collection")
def test_a_file_is_read_into_templates_sorted_by_name(folder: Path) -> None:
    templates = load_templates("reviews", folders=[folder])
    assert list(templates) == ["a first", "b second"]
    second = templates["b second"]
    assert (second.dataset, second.subset, second.uid[-1]) == ("reviews", "", "b")
    assert second.answer_choices == "yes ||| no"
    assert second.metrics == ("Accuracy", "Other")
    assert (second.original_task, second.choices_in_prompt) == (True, None)
    first = templates["a first"]
    assert first.jinja == "Continue:\n{{text}} ||| {{rest}}"
    assert (first.answer_choices, first.original_task, first.metrics) == (None, False, ())


@pytest.mark.usefixtures("no_collection")
def test_datasets_are_listed_and_each_key_loads(folder: Path) -> None:
    keys = list_datasets([folder])
    assert keys == [("Zaid/talks", ""), ("pairs", "easy"), ("reviews", ""), ("someone/data", "config")]
    for key in keys:
        assert len(load_templates(*key, folders=[folder])) == 2


@pytest.mark.usefixtures("no_collection")
def test_earlier_folders_win(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "mine" / "reviews", YAML.format(dataset="reviews").replace("a first", "changed"))
    assert "changed" in load_templates("reviews", folders=[tmp_path / "mine", folder])
    assert "a first" in load_templates("reviews", folders=[folder, tmp_path / "mine"])


@pytest.mark.usefixtures("no_collection")
def test_an_edited_file_is_read_again(folder: Path) -> None:
    path = folder / "reviews" / "templates.yaml"
    load_templates("reviews", folders=[folder])
    path.write_text(path.read_text().replace("a first", "renamed"))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert "renamed" in load_templates("reviews", folders=[folder])


def test_the_environment_names_the_collection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T0TRAIN_TEMPLATES", str(folder))
    assert template_folder() == folder
    assert len(load_templates("pairs", "easy")) == 2
    monkeypatch.setenv("T0TRAIN_TEMPLATES", str(folder / "nowhere"))
    with pytest.raises(UserError, match="T0TRAIN_TEMPLATES"):
        template_folder()


def test_an_installed_promptsource_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "site" / "promptsource" / "templates" / "reviews", YAML.format(dataset="reviews"))
    (tmp_path / "site" / "promptsource" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("T0TRAIN_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.delenv("T0TRAIN_TEMPLATES", raising=False)
    assert template_folder() == tmp_path / "site" / "promptsource" / "templates"
    assert len(load_templates("reviews")) == 2


@pytest.mark.usefixtures("no_collection")
def test_without_a_collection_the_message_says_how_to_get_it(folder: Path) -> None:
    assert template_folder() is None
    assert list_datasets() == []
    for folders in ([], [folder]):
        with pytest.raises(UserError, match="t0train prompts install"):
            load_templates("imdb", folders=folders)


def test_an_unknown_dataset_names_the_nearest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T0TRAIN_TEMPLATES", str(folder))
    with pytest.raises(UserError, match="'pairs/esay': did you mean 'pairs/easy'"):
        load_templates("pairs", "esay")


@pytest.mark.parametrize(("dataset", "subset"), [("../own/reviews", None), ("", None), ("reviews", ".."), ("/etc", "")])
def test_names_cannot_leave_the_folder(folder: Path, dataset: str, subset: str | None) -> None:
    with pytest.raises(UserError, match="names no dataset"):
        load_templates(dataset, subset, folders=[folder])


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("templates: {x: !!python/object/apply:os.mkdir [harm]}", "python/object"),
        ("templates: {x: !Other {name: n, jinja: j}}", "!Other"),
        ("templates: [broken", "YAML"),
        ("- a list", "format"),
        ("other: 1", "templates"),
        ("templates: {x: !Template {name: n}}", "jinja"),
        ("templates: {x: !Template {name: 3, jinja: j}}", "template 'x': `name` is 3 .*expected a text"),
        ("templates: {x: !Template {name: n, jinja: j}, y: !Template {name: n, jinja: k}}", "of one name: 'n'"),
        ("", "it holds nothing"),
        ("templates:", "`templates`, which is nothing"),
        ("templates: [a]", "`templates`, which is a list"),
        ("templates: {x: 1}", r"template 'x' is 1 \(int\)"),
        ("templates: {x: {name: n, jinja: [a]}}", "template 'x': `jinja` is a list"),
        ("templates: {x: {name: n, jinja: 2020-01-02}}", "template 'x': `jinja` is 2020-01-02"),
        ("templates: {x: {name: '', jinja: j}}", "template 'x': `name` is empty"),
        (
            "templates: {x: {name: n, jinja: j, answer_choices: no}}",
            "`answer_choices` is the truth value false.*quotes",
        ),
        ("templates: {x: {name: n, jinja: j, answer_choices: [no, yes]}}", "`answer_choices` is a list.*'no ||| yes'"),
        ("templates: {x: {name: n, jinja: j, answer_choices: 1}}", r"`answer_choices` is 1 \(int\).*quotes"),
        ("templates: {x: {name: n, jinja: j, answer_choices: 0}}", r"`answer_choices` is 0 \(int\).*quotes"),
        ("templates: {x: {name: n, jinja: j, metadata: yes}}", "`metadata` is the truth value true.*a mapping"),
        (
            "templates: {x: {name: n, jinja: j, metadata: {metrics: Accuracy}}}",
            "`metrics` is the text 'Accuracy'.*a list",
        ),
        ("templates: {x: {name: n, jinja: j, metadata: {metrics: [1]}}}", r"`metrics` holds 1 \(int\)"),
        ("templates: {x: {name: n, jinja: j, metadata: {original_task: 1}}}", "`original_task` is 1 .*true or false"),
        ("templates: {x: {name: n, jinja: j, metadata: {original_task: 'no'}}}", "`original_task` is the text 'no'"),
        ("templates: {x: {name: n, jinja: j, metadata: {choices_in_prompt: []}}}", "`choices_in_prompt` is a list"),
        ("templates: {x: {name: n, jinja: j, d: 2020-13-45}}", "is not YAML"),
        ("templates: {x: {name: n, jinja: j, [a]: b}}", "is not YAML"),
        ("templates: {x: !Template [a]}", "is not YAML"),
        ("templates: &a {x: *a}", "an alias repeats the value that contains it"),
    ],
)
def test_anything_but_the_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own" / "reviews", text)
    with pytest.raises(UserError, match=reason):
        load_templates("reviews", folders=[tmp_path / "own"])
    assert not (tmp_path / "harm").exists()


TWO = "templates:\n  {}:\n    name: first\n    jinja: a ||| b\n  {}:\n    name: second\n    jinja: c ||| d\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TWO.format(1, 1), "line 5: the key '1' occurs twice, first on line 2"),
        (TWO.format("x-y", "x-y"), "line 5: the key 'x-y' occurs twice, first on line 2"),
        (TWO.format("x", "'x'"), "line 5: the key 'x' occurs twice"),
        (TWO.format(1, "0x1"), "line 5: the key '0x1' occurs twice"),
        (TWO.format(1, "true"), "line 5: the key 'true' occurs twice"),
        (TWO.format(1, "'1'"), "several templates of one identifier: '1'"),
        (TWO.replace("name", "id: z\n    name").format("x", "y"), "several templates of one `id`: 'z'"),
        ("templates: {}\ntemplates: {}\n", "line 2: the key 'templates' occurs twice"),
        ("templates:\n  x: !Template\n    name: n\n    jinja: j\n    jinja: k\n", "line 5: the key 'jinja'"),
        ("templates:\n  x:\n    name: n\n    jinja: j\n    metadata: {a: 1, a: 1}\n", "line 5: the key 'a'"),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_what_stands_there_twice_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path / "reviews", text)
    with pytest.raises(UserError, match=reason):
        load_templates("reviews", folders=[tmp_path])


@pytest.mark.usefixtures("no_collection")
def test_aliases_and_merged_keys_are_read(tmp_path: Path) -> None:
    text = (
        "templates:\n  x: &x\n    name: first\n    jinja: a ||| b\n    metadata: &m {original_task: true}\n"
        "  y:\n    <<: *x\n    name: second\n  z: {name: third, jinja: c, metadata: *m}\n"
    )
    write(tmp_path / "reviews", text)
    templates = load_templates("reviews", folders=[tmp_path])
    assert {name: (one.jinja, one.original_task) for name, one in templates.items()} == {
        "first": ("a ||| b", True),
        "second": ("a ||| b", True),
        "third": ("c", True),
    }


@pytest.mark.usefixtures("no_collection")
def test_a_byte_order_mark_is_accepted(folder: Path) -> None:
    path = folder / "reviews" / "templates.yaml"
    path.write_text(YAML.format(dataset="reviews"), encoding="utf-8-sig")
    assert list(load_templates("reviews", folders=[folder])) == ["a first", "b second"]


def bomb() -> str:
    """Ten lines, each with ten aliases of the line before: ten thousand million values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    return "\n".join(lines) + "\ntemplates: {x: {name: n, jinja: *a10}}\n"


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(), "aliases repeat values"),
        (bomb().replace("jinja: *a10", "jinja: j, <<: *a10"), "aliases repeat values"),
        ("templates: " + "[" * 1_000_000, "line 1: more than 20 mappings and lists"),
        ("templates: " + "{a: " * 900_000, "line 1: more than 20 mappings and lists"),
        ("\n".join(" " * i + "a:" for i in range(2000)), "line 21: more than 20 mappings and lists"),
        ("# " + "x" * 5_000_000, "5,000,002 bytes"),
    ],
)
def test_files_that_would_cost_too_much_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path / "reviews", text)
    started = time.process_time()
    with pytest.raises(UserError, match=reason):
        load_templates("reviews", folders=[tmp_path])
    assert time.process_time() - started < 4


def test_a_template_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_templates("reviews", folders=[tmp_path / "nowhere"])
