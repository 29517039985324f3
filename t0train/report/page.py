"""What a page is made of, and how it becomes Markdown and HTML: sections of sentences, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from t0train.core.hashing import content_hash
from t0train.core.text import escape_markdown, printable
from t0train.core.version import t0train_version
from t0train.report import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 100
"""Characters of a file's name."""
_LONG_CELL = 30
"""Characters from which on the text of a cell is broken into lines."""


@dataclass(frozen=True)
class PageTable:
    """Cells are plain text. Folded tables are closed at first.

    The first `names` and the last `notes` columns hold texts, aligned left; those between hold numbers, aligned right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    names: int = 1
    notes: int = 0
    folded: bool = False
    kind: str = "table"

    @property
    def is_text(self) -> list[bool]:
        """Whether each column holds texts."""
        columns = len(self.header)
        return [place < self.names or place >= columns - self.notes for place in range(columns)]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: file name without ending, a sentence for those who cannot see it, the two renderings."""

    name: str
    caption: str
    svg: str
    png: bytes
    kind: str = "picture"


@dataclass(frozen=True)
class Sentences:
    """One paragraph, or a list of points."""

    lines: Sequence[str]
    kind: str = "sentences"


Part = PageTable | Picture | Sentences


@dataclass(frozen=True)
class PageSection:
    """A heading and what is below it; it is left out where there are no parts."""

    title: str
    parts: Sequence[Part]


def picture(name: str, caption: str, figure: Figure) -> Picture:
    """A figure, rendered; its file is called by plain characters, whatever the name holds."""
    return Picture(_file_name(name), caption, *figures.render(figure))


def _file_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return name if plain == name and len(name) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}-{content_hash(name, 8)}"


def markdown(title: str, sections: Sequence[PageSection]) -> str:
    """The report as GitHub-flavoured Markdown; its figures are files in the same folder."""
    return _environment(autoescape=False).get_template("report.md.jinja").render(**_values(title, sections))


def markdown_sections(sections: Sequence[PageSection]) -> str:
    """Sections alone, as Markdown to be put into another page."""
    return _environment(autoescape=False).get_template("sections.md.jinja").render(sections=sections)


def html(title: str, sections: Sequence[PageSection]) -> str:
    """The report as one HTML page that needs no other file and no network."""
    return _environment(autoescape=True).get_template("report.html.jinja").render(**_values(title, sections))


def _values(title: str, sections: Sequence[PageSection]) -> dict[str, object]:
    return {"title": title, "sections": sections, "version": t0train_version()}


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("t0train.report"),
        autoescape=autoescape,  # noqa: S701 (off for Markdown only, which escape_markdown makes safe)
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"md": escape_markdown, "code": _code, "inline_svg": _inline_svg, "anchor": _anchor}
    environment.filters.update({**filters, "cell_class": _cell_class})
    return environment


def _finalize(value: object) -> object:
    """Whatever is printed into a page: without control characters."""
    return type(value)(printable(value)) if isinstance(value, str) else value


def _code(sentence: str) -> Markup:
    """A sentence for HTML: escaped, with `...` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(Markup.escape(sentence))))  # noqa: S704 (escaped)


def _cell_class(cell: str, is_text: bool) -> Markup:
    """The class of a table's cell: texts are aligned left, long ones are wrapped."""
    classes = [*(["text"] if is_text else []), *(["long"] if len(cell) > _LONG_CELL else [])]
    return Markup(f' class="{" ".join(classes)}"') if classes else Markup()  # noqa: S704 (our own words)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _inline_svg(picture: Picture) -> Markup:
    """An SVG element for the page: ids unique among figures, ink in the page's text colour."""
    svg = picture.svg[picture.svg.index("<svg") :].replace(figures.INK, "currentColor")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{_anchor(picture.name)}-", svg)
    label = Markup.escape(picture.caption)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))  # noqa: S704 (drawn by matplotlib)
