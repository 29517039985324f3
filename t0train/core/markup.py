"""Text of unknown origin, made safe to show: on terminals and in figures, in Markdown pages."""

from __future__ import annotations

import re

# Control characters but line ends and tabs, marks that change the direction of what follows, and what UTF-8 or XML
# cannot hold.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with a replacement character for all that could steer a terminal or cannot be written to a file."""
    return _UNSAFE.sub("\ufffd", text)


def shortened(text: str, most: int) -> str:
    """At most `most` characters on one line, printable; a long text keeps its ends."""
    line = " ".join(printable(text).split())
    head = (most - 3) // 2
    return line if len(line) <= most else f"{line[:head]}...{line[len(line) - (most - 3 - head) :]}"


_CODE = re.compile(r"`([\w ./=:{},*+-]+)`")  # commands and names of keys, as our own sentences have them
_SPECIAL = re.compile(r"[\\*|`$~]|(?<!\w)_|_(?!\w)|\](?=[(\[])")  # `_` means nothing within words; links last
_ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.|@", re.IGNORECASE)  # GitHub makes links of bare addresses
_BLOCK = re.compile(r"(#{1,6}|[-+]+|=+|\d{1,9}[.)])(?=\s|$)|>|\[")  # headings, lists, quotations, link definitions


def escape_markdown(text: str, starts_block: bool = False, in_brackets: bool = False) -> str:
    """One line that Markdown shows as the text stands, also in the cell of a table; `code` of plain words stays code.

    Args:
        text: any.
        starts_block: it stands at the beginning of a line, where `#`, `1.` and the like begin headings and lists.
        in_brackets: it stands between the brackets of an image or link, whose end a bracket within it could be.
    """
    parts = _CODE.split(" ".join(printable(text).split()))
    parts[::2] = (_escape_inline(part, in_brackets) for part in parts[::2])
    parts[1::2] = (f"`{part}`" for part in parts[1::2])
    line = "".join(parts)
    if starts_block and (found := _BLOCK.match(line)):
        last = found.end() - 1
        return f"{line[:last]}\\{line[last:]}"
    return line


def _escape_inline(text: str, in_brackets: bool) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    if in_brackets:
        text = text.replace("[", "&#91;").replace("]", "&#93;")
    return _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", _SPECIAL.sub(r"\\\g<0>", text))
