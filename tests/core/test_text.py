"""Text as it comes: UTF-8, with or without a mark, and strict JSON against `json` as the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.core.text import decode, parse_json, read_csv, read_json, read_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


@given(VALUES, st.booleans())
def test_json_is_read_as_json_reads_it(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only), "here") == value


@given(TEXT, st.booleans())
def test_text_with_or_without_a_mark(text: str, marked: bool) -> None:
    text = text.removeprefix("\ufeff")
    assert decode(b"\xef\xbb\xbf" * marked + text.encode(), "here") == text


def test_places_of_bad_bytes_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^here, line 3: the byte 0xFF"):
        decode(b"a\nb\n\xff", "here")
    (tmp_path / "utf-16.txt").write_text("text", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16"):
        read_text(tmp_path / "utf-16.txt")
    with pytest.raises(UserError, match="UTF-16"):
        list(read_csv(tmp_path / "utf-16.txt"))
    for read in (read_text, read_json):
        with pytest.raises(UserError, match=r"cannot read .*none: No such file"):
            read(tmp_path / "none")
        with pytest.raises(UserError, match="Is a directory"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' occurs twice"),
        ('{\n"a": 1,\n"b" 2}', "line 3, column 5"),
        ("[1, NaN]", "NaN"),
        ("[1e400]", "beyond the range"),
        ("", "empty"),
        ("[" * 101 + "]" * 101, "nested more than 100"),
        ('["\\udc00"]', "surrogate"),
    ],
)
def test_strict_json(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_json(text, "here")
    assert parse_json("[" * 100 + "]" * 100, "here") == json.loads("[" * 100 + "]" * 100)
