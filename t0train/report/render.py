"""From the content of a report to its Markdown and HTML pages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from t0train.core.text import escape_markdown, printable
from t0train.core.version import t0train_version
from t0train.report.elements import Picture, Section
from t0train.report.figures import INK

_LONG = 30
"""Characters from which on the text of a cell is broken into lines."""


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as GitHub-flavoured Markdown; its figures are files beside it."""
    return _environment(autoescape=False).get_template("report.md.jinja").render(**_values(title, sections))


def markdown_sections(sections: Sequence[Section]) -> str:
    """Sections alone, as Markdown to be put into another page."""
    return _environment(autoescape=False).get_template("sections.md.jinja").render(sections=sections)


def html(title: str, sections: Sequence[Section]) -> str:
    """The report as one HTML page that needs no other file and no network."""
    return _environment(autoescape=True).get_template("report.html.jinja").render(**_values(title, sections))


def _values(title: str, sections: Sequence[Section]) -> dict[str, object]:
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
    """The class of a table's cell: texts stand at the left, long ones are wrapped."""
    classes = [*(["text"] if is_text else []), *(["long"] if len(cell) > _LONG else [])]
    return Markup(f' class="{" ".join(classes)}"') if classes else Markup()  # noqa: S704 (our own words)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _inline_svg(picture: Picture) -> Markup:
    """An SVG element for the page: ids unique among figures, ink in the page's text colour."""
    svg = picture.svg[picture.svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{_anchor(picture.name)}-", svg)
    label = Markup.escape(picture.caption)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))  # noqa: S704 (drawn by matplotlib)
