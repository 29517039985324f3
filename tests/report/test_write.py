"""Reports: what they say, that they stand alone, and what they do with half a run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from t0train.core.errors import UserError
from t0train.report import RunData, build_card, build_report, headlines, read_run, read_runs, write_report
from t0train.report.sections.accuracy import accuracy_panels
from tests.at_once import after_waiting, killed_while_writing
from tests.report.conftest import WriteRun, cells, make_run, results, step_event

TINY: dict[str, Any] = {"model": {"init_from": "random", "size": "tiny"}}
EVENTS = [
    {"kind": "start", "probabilities": {"a": 0.75, "b": 0.25}, "remarks": ["dropped: c; 5.0% of the weight"]},
    step_event(1, {"a": 60, "b": 40}),
    {"kind": "speed", "step": 1, "tokens_per_s": 1234.0},
    step_event(2, {"a": 90, "b": 10}),
]


class Page(HTMLParser):
    """Tags, ids, addresses and text of an HTML page; complains about tags closed in the wrong order."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def full_run(root: Path) -> Path:
    suites = {"demo": results({"movies": [0.9, 0.7, 0.8]}), "demo-untrained": results({"movies": [0.5, 0.4, 0.6]})}
    return make_run(root, events=EVENTS, suites=suites, optimizer={"lr": 0.01}, **TINY)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return full_run(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a full run, written once: for tests that only read it."""
    root = tmp_path_factory.mktemp("report")
    return write_report([full_run(root)], root / "out")


@pytest.fixture(scope="module")
def markdown(page: Path) -> str:
    return page.with_suffix(".md").read_text()


def test_headline_figures_stand_in_both_pages(page: Path, markdown: str) -> None:
    assert page.name == "report.html"
    row = next(line for line in markdown.splitlines() if line.startswith("| movies"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "movies", "test[:200]", "3", "200", "80.0 [77.0, 83.0]", "80.0 [78.0, 82.0]", "50.0", "52.5", "50.0",
    ]  # fmt: skip
    for words in (markdown, Page(page.read_text()).words):
        assert "80.0 [77.0, 83.0]" in words
        assert "optimizer.lr is 0.01 where T0 has 0.001" in words
        assert "2 of 12,200" in words


def test_further_metrics_stand_in_report_and_card(write_run: WriteRun, tmp_path: Path) -> None:
    document = results({"movies": [0.9, 0.7], "mail": [0.5]})
    document["tasks"][0] |= {
        "metrics": {"f1": {"median": 0.61, "mean": 0.62}},
        "metric_intervals": {"f1": [0.55, 0.66]},
        "metric_baselines": {"f1": {"chance": 0.4, "majority": 0.3}},
    }
    one, two = document["tasks"][0]["prompts"]
    one |= {"metrics": {"f1": 0.63}, "remarks": {"empty choice": 2}}
    two |= {"metrics": {"f1": 0.61}}
    run = write_run(suites={"demo": document}, **TINY)
    for text in (write_report([run], tmp_path / "out").with_suffix(".md").read_text(), build_card(run, 300, []).text):
        where = ("movies", "test[:200]", "f1")
        assert cells(text, *where)[3:] == ["61.0 [55.0, 66.0]", "62.0", "40.0", "30.0"]
        assert "| mail | test[:200] | f1 |" not in text
        assert cells(text, "prompt 0")[5:] == ["63.0", "0", "empty choice: 2"]
        assert cells(text, "prompt 1")[5:] == ["61.0", "0", "-"]


def test_what_was_scored_and_what_was_not_is_said(markdown: str) -> None:
    assert "demo: the checkpoint of step 300 was scored." in markdown
    assert "demo: dropped: c; 5.0% of the weight." in markdown
    assert cells(markdown, "summarise it")[-1] == "not ranked: it has no answer choices"


def test_shares_count_every_draw(markdown: str) -> None:
    # a: 60 + 90 of 200 draws = 75 %, exactly as expected; b: 25 %.
    assert "2 tasks, 2 of them inside the range" in markdown
    assert "drawn 75.00 % of the time where 75.00 % was expected (0.0 standard errors)" in markdown


def test_a_task_drawn_too_often_is_named(write_run: WriteRun, tmp_path: Path) -> None:
    # 100 draws at p = 0.5: standard error 0.05; 70 draws are 4 of them too many. b: 0.049, 3.1 too few. c: 0.03, 1.7.
    events = [
        {"kind": "start", "probabilities": {"a": 0.5, "b": 0.4, "c": 0.1, "d": 1e-9}},
        step_event(1, {"a": 70, "b": 25, "c": 5}),
    ]
    markdown = write_report([write_run(events=events, **TINY)], tmp_path / "out").with_suffix(".md").read_text()
    assert "4 tasks, 2 of them inside the range" in markdown
    assert "drawn 70.00 % of the time where 50.00 % was expected (4.0 standard errors); 1 not drawn yet." in markdown


def test_fill_is_weighted_by_rows(write_run: WriteRun, tmp_path: Path) -> None:
    events = [
        step_event(1, {"a": 10}, rows=1, fill_inputs=0.5, fill_targets=0.1),
        step_event(2, {"a": 20}, rows=3, fill_inputs=0.9, fill_targets=0.2),
    ]
    markdown = write_report([write_run(events=events, **TINY)], tmp_path / "out").with_suffix(".md").read_text()
    assert "80.0 % of the input slots and 17.5 % of the target slots are filled, 7.5 examples a row" in markdown


def test_html_stands_alone_and_is_well_formed(page: Path) -> None:
    text = page.read_text()
    html = Page(text)
    assert html.tags.count("svg") == 4  # accuracy, training, tasks, packing
    assert all(address.startswith("#") for address in html.addresses)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert len(html.ids) == len(set(html.ids))
    assert {address.removeprefix("#") for address in html.addresses} <= set(html.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(html.ids)


def test_names_from_outside_are_escaped(write_run: WriteRun, tmp_path: Path) -> None:
    nasty = results({"movies": [0.5]})
    nasty["tasks"][0]["dataset"] = "<script>alert(1)</script>"
    nasty["tasks"][0]["prompts"][0]["name"] = "a|b <b>bold</b>\nnew line"
    page = write_report([write_run(suites={"demo": nasty}, **TINY)], tmp_path / "out")
    assert "<script" not in page.read_text()
    assert "<b>bold" not in page.read_text()
    markdown = page.with_suffix(".md").read_text()
    assert "<script" not in markdown
    row = next(line for line in markdown.splitlines() if "bold" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 8  # seven columns, whatever the name holds


def test_figures_in_the_folder_of_the_page_are_svg_and_png(page: Path, markdown: str) -> None:
    out = page.parent
    linked = re.findall(r"\]\((\S+\.png)\)", markdown)
    assert linked == ["accuracy-demo.png", "training.png", "tasks.png", "packing.png"]
    for name in linked:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse((out / name).with_suffix(".svg")).getroot().tag.endswith("svg")


def test_the_same_run_gives_the_same_bytes(page: Path, run: Path, tmp_path: Path) -> None:
    assert write_report([run], tmp_path / "out").read_bytes() == page.read_bytes()


def test_several_runs_are_compared(run: Path, write_run: WriteRun, tmp_path: Path) -> None:
    other = write_run(
        "other", events=EVENTS[:2], suites={"demo": results({"movies": [0.6], "mail": [0.3, 0.4]})}, **TINY
    )
    lines = headlines(read_runs([run, other]))
    assert [(line.dataset, line.run, line.untrained) for line in lines] == [
        ("movies", "demo", 0.5),
        ("movies", "other", None),
        ("mail", "other", None),
    ]
    page = write_report([run, other], tmp_path / "out")
    assert (page.parent / "tasks-0.png").exists()
    assert (page.parent / "tasks-1.png").exists()
    assert "demo and other" in page.read_text()


@pytest.mark.parametrize(
    ("before", "is_shown"),
    [
        ({}, True),
        ({"records": 20}, False),
        ({"revision": "other records"}, False),
        ({"records": 20, "revision": "other records"}, False),
    ],
)
def test_untrained_is_shown_of_the_same_records_only(
    before: dict[str, object], is_shown: bool, write_run: WriteRun, tmp_path: Path
) -> None:
    trained, untrained = results({"movies": [0.9], "mail": [0.8]}), results({"movies": [0.125], "mail": [0.375]})
    for document in (trained, untrained):
        document["tasks"][0]["revision"] = "records 1"
    untrained["tasks"][0] |= before
    folder = write_run(suites={"demo": trained, "demo-untrained": untrained}, **TINY)
    page = write_report([folder], tmp_path / "out")
    for text in (page.with_suffix(".md").read_text(), build_card(folder, 300, []).text):
        movies, mail = (cells(text, key, "test[:200]") for key in ("movies", "mail"))
        assert (movies[-1], mail[-1]) == ("12.5" if is_shown else "-", "37.5")
        prompts = text.partition("demo: movies test")[2].partition("demo: mail test")[0]
        assert ("12.5" in prompts, "untrained" in prompts) == (is_shown, is_shown)
        said = "demo, untrained: evaluated on other records of movies, and left out there"
        assert (said in text) is not is_shown
    boxes = {
        panel.dataset: [box.model for box in panel.boxes] for panel in accuracy_panels(read_runs([folder]), "demo")
    }
    assert boxes == {"movies": ["untrained"] * is_shown + ["demo"], "mail": ["untrained", "demo"]}


def test_a_trained_family_is_told_from_a_trained_dataset(write_run: WriteRun, tmp_path: Path) -> None:
    document = results({name: [0.5] for name in ("movies", "mail", "news", "books")})
    kinds = {"movies": "records", "mail": "dataset", "news": "family"}
    document["not_held_out"] = {key: {"kind": kind, "sentence": f"{key} by {kind}"} for key, kind in kinds.items()}
    folder = write_run(suites={"demo": document}, **TINY)
    text = write_report([folder], tmp_path / "out").with_suffix(".md").read_text()
    column = cells(text, "dataset", "split").index("held out")
    said = [cells(text, key, "test[:200]")[column] for key in ("movies", "mail", "news", "books")]
    assert said == ["no", "no", "dataset, not family", "yes"]
    assert "- demo: news by family." in text
    assert [panel.dataset for panel in accuracy_panels(read_runs([folder]), "demo")] == [
        *("movies (not held out)", "mail (not held out)", "news (family trained on)", "books"),
    ]


def test_runs_of_one_name_are_told_apart(write_run: WriteRun) -> None:
    runs = read_runs([write_run(**TINY), write_run(folder="again", **TINY)])
    assert runs[0].name != runs[1].name


def test_a_run_without_steps_or_scores_says_so(write_run: WriteRun, tmp_path: Path) -> None:
    words = Page(write_report([write_run(**TINY)], tmp_path / "out").read_text()).words
    assert "No evaluation yet" in words
    assert "No training step has been logged yet" in words
    assert "no draws have been logged yet" in words
    assert "No packed row has been logged yet" in words


def test_one_writes_a_report_at_a_time_and_removes_what_a_killed_one_left(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(), tmp_path / "out"
    [left] = killed_while_writing(out / "report.md")
    page = after_waiting(out / ".lock", lambda: write_report([run], out), capsys)
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert not left.exists()


def test_a_half_written_last_event_is_left_out(run: Path, tmp_path: Path) -> None:
    with (run / "events.jsonl").open("a") as stream:
        stream.write('{"kind": "step", "st')
    assert "2 of 12,200" in write_report([run], tmp_path / "out").with_suffix(".md").read_text()


def test_one_step_is_enough_for_curves(write_run: WriteRun, tmp_path: Path) -> None:
    page = write_report([write_run(events=EVENTS[:2], **TINY)], tmp_path / "out")
    assert (page.parent / "training.png").exists()


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_not_a_run_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is no run folder|is not a run folder"):
        write_report([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["events.jsonl", "deviations.json", "eval/demo/results.json", "config.resolved.yaml"])
def test_a_damaged_file_is_named(file: str, run: Path, tmp_path: Path) -> None:
    (run / file).write_text("{ not: [json\n")
    with pytest.raises(UserError, match=file):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_configuration_hash_is_that_of_config_show(run: Path) -> None:
    from t0train.config import config_hash, load_config

    assert read_run(run).config_hash == config_hash(load_config(run / "config.resolved.yaml"))


@pytest.mark.slow
def test_command_prints_paths_and_accuracies(run: Path) -> None:
    import typer

    from t0train.cli.report import command

    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(run), "--json"])
    printed = json.loads(done.stdout)
    assert Path(printed["html"]) == run / "report" / "report.html"
    assert Path(printed["markdown"]).exists()
    assert printed["accuracy"][0]["mean"] == pytest.approx(0.8)
    assert CliRunner().invoke(app, [str(run)]).stdout.strip() == str(run / "report" / "report.html")


def test_json_output_reads_every_run_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(folder: Path, step: int | None = None) -> RunData:
        read.append(folder)
        return read_run(folder, step)

    monkeypatch.setattr("t0train.report.run_data.read_run", counted)
    report = build_report(run)
    assert read == [run]
    assert report.page == run / "report" / "report.html"
    assert [line.dataset for line in report.headlines] == ["movies"]
    assert report.headlines[0].mean == pytest.approx(0.8)
