"""Names that others have chosen: in no page, figure, card or table do they become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from t0train.core.text import escape_markdown, printable, shortened
from t0train.report import build_card, write_report
from tests.report.conftest import WriteRun, results, step_event

NASTY = [
    "![i](http://evil.example/i.png)",
    "[l](http://evil.example)",
    "[l]: http://evil.example",
    "[l][l]",
    "<img src=http://evil.example/x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- x",
    "a|b",
    "`code` `` <b>x</b> ``",
    "`",
    "one\n\n# two\n\n<b>three</b>",
    "\u2028# heading",
    "https://evil.example",
    "www.evil.example",
    "<https://evil.example>",
    "me@evil.example",
    "*a* _b_ ~~c~~ **d**",
    "$x$ and $",
    "$\\frac{",
    "\\",
    "\\[l](http://evil.example)",
    "&lt;b&gt; &#60;b&#62;",
    "# heading",
    "1. item",
    "> quote",
    "---",
    "_private",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "\ud800",
    "\x00",
    "名前",
    "שם",
    "x" * 300,
    "",
]
IN_PAGES = [
    "[l]: http://evil.example",
    "[l](http://evil.example)![i](http://evil.example/i.png)`code` `` <b>x</b> ` $\\frac{ a|b \\<!-- x",
    "<script>alert(1)</script>one\n\n# two\n\n<b>three</b>\u202egnp\x1b[31m\x00 \ud800 \u540d\u524d",
    "1. *a* _b_" + "x" * 300,
    "",
]
"""Fewer, as each draws all figures of a report."""
FORBIDDEN = {"link_open", "image", "html_inline", "heading_open", "em_open", "strong_open", "s_open", "blockquote_open"}


def inline(text: str) -> list[Token]:
    """All tokens that a Markdown reader sees."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [part for token in tokens for part in (token, *(token.children or ()))]


def shown(text: str) -> str:
    """What a reader of the page sees of one paragraph."""
    return "".join(token.content for token in inline(text) if token.type in ("text", "code_inline", "text_special"))


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("starts_block", [True, False])
def test_markdown_shows_names_as_they_are(name: str, starts_block: bool) -> None:
    escaped = escape_markdown(name, starts_block)
    paragraph = escaped if starts_block else f"x {escaped}"
    types = {token.type for token in inline(paragraph)}
    assert not types & (FORBIDDEN | {"html_block", "fence", "hr", "ordered_list_open", "bullet_list_open"})
    expected = " ".join(printable(name).split())
    expected = re.sub(r"`([\w ./=:{},*+-]+)`", r"\1", expected)  # plain words between backticks are code
    assert shown(paragraph).removeprefix("" if starts_block else "x").strip() == expected.strip()
    assert not re.search(r"https?://|www\.|\w@\w", escaped)  # GitHub makes links of addresses by themselves
    table = f"| a | b |\n|:--|--:|\n| {escape_markdown(name)} | last |\n"
    assert [token.type for token in inline(table)].count("td_open") == 2


def hostile_run(write_run: WriteRun, name: str) -> Path:
    document = results({"movies": [0.5, 0.25]})
    entry = document["tasks"][0]
    entry |= {"dataset": name, "caveat": f"{name} caveat", "split": name, "left_out": {name: name}}
    entry["mistakes"] = [{"prompt": name, "record": 1, "input": name, "answer": name, "gold": name}]
    for place, prompt in enumerate(entry["prompts"]):
        prompt |= {"name": f"{name}{place}", "task": f"{name}{place}", "remarks": {name: 1}}
    document |= {
        "missing": [{"dataset": name, "split": name, "reason": name}],
        "probes": [{"name": name, "input": name, "output": name}],
        "not_held_out": {name: {"kind": "dataset", "sentence": name}},
    }
    events = [
        {"kind": "start", "probabilities": {name: 0.75, "b": 0.25}, "remarks": [name], "mixture": name},
        step_event(1, {name: 3, "b": 1}),
        step_event(2, {name: 3, "b": 1}),
    ]
    run: Path = write_run(suites={"demo": document}, events=events, model={"init_from": "random", "size": "tiny"})
    config = (run / "config.resolved.yaml").read_text().replace("name: demo", f"name: {json.dumps(name or ' ')}", 1)
    (run / "config.resolved.yaml").write_text(config)
    (run / "deviations.json").write_text(json.dumps([{"sentence": f"{name} is {name}."}]))
    return run


class Elements(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def external(attributes: dict[str, str | None]) -> list[Any]:
    addresses = [value for name, value in attributes.items() if name.rpartition(":")[2] in ("src", "href", "data")]
    return [value for value in addresses if value is not None and not value.startswith("#")]


@pytest.mark.parametrize("name", IN_PAGES)
def test_report_and_card_hold_no_foreign_markup(name: str, write_run: WriteRun, tmp_path: Path) -> None:
    run = hostile_run(write_run, name)
    page = write_report([run], tmp_path / "out")
    for text in (page.with_suffix(".md").read_text(encoding="utf-8"), build_card(run, 300, []).text):
        types = [token.type for token in inline(text)]
        assert not set(types) & {"link_open", "html_inline", "fence", "blockquote_open", "ordered_list_open", "em_open"}
        images = [token for token in inline(text) if token.type == "image"]
        assert all(re.fullmatch(r"[\w.-]+\.png", str(token.attrs["src"])) for token in images)
        blocks = [token.content for token in inline(text) if token.type == "html_block"]
        assert all(re.fullmatch(r"(<details><summary>[^<>]*</summary>|</details>)\s*", block) for block in blocks)
        headings = [inline(text)[i + 1].content for i, kind in enumerate(types) if kind == "heading_open"]
        assert "heading" not in headings
        assert "two" not in headings
    html = page.read_text(encoding="utf-8")
    elements = Elements(html).found
    assert not {"script", "img", "iframe", "object", "b", "link"} & {tag for tag, _ in elements}
    assert not any(external(attributes) for _, attributes in elements)
    assert not any(key.startswith("on") for _, attributes in elements for key in attributes)
    policy = [attributes["content"] for tag, attributes in elements if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


@pytest.mark.parametrize("suite", ["a b (c)", "x](http://evil.example)", "y" * 200, "名前"])
def test_figures_have_plain_file_names(suite: str, write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run()
    folder = run / "eval" / suite.replace("/", "_")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results({"movies": [0.5]})))
    page = write_report([run], tmp_path / "out")
    [name] = re.findall(r"\]\((accuracy-[\w.-]*\.png)\)", page.with_suffix(".md").read_text())
    assert len(name) < 130
    assert (tmp_path / "out" / name).is_file()


def test_two_runs_with_odd_names_have_a_legend(write_run: WriteRun, tmp_path: Path) -> None:
    events = [step_event(step, {"a": 1}) for step in (1, 2)]
    runs = []
    for place, name in enumerate(("_a", "$b$")):
        run = write_run(f"run{place}", events=events, suites={"demo": results({"movies": [0.5]})})
        config = (run / "config.resolved.yaml").read_text().replace(f"name: run{place}", f"name: {json.dumps(name)}", 1)
        (run / "config.resolved.yaml").write_text(config)
        document = json.loads((run / "eval/demo/results.json").read_text())
        document["model"]["name"] = name
        (run / "eval/demo/results.json").write_text(json.dumps(document))
        runs.append(run)
    write_report(runs, tmp_path / "out")
    drawn = (tmp_path / "out" / "training.svg").read_text()
    assert re.search("> ?_a<", drawn)
    assert "$b$" in drawn


def test_long_texts_keep_their_ends() -> None:
    assert shortened("abcdefghij", 9) == "abc...hij"
    assert shortened("ab\ncd", 9) == "ab cd"
    assert printable("a\x1bb\u202ec\ud800\n") == "a\ufffdb\ufffdc\ufffd\n"
    assert printable("名 שם é 👍🏽") == "名 שם é 👍🏽"
