"""Suggestions for misspelt names, refusals of the operating system."""

from __future__ import annotations

import errno

import pytest

from t0train.core.errors import UserError, explain_os_errors, nearest


def test_nearest_names_the_close_spelling_first() -> None:
    assert nearest("stpes", ["steps", "seed", "batch"]) == "did you mean 'steps'?"


def test_nearest_lists_what_there_is_when_nothing_is_close() -> None:
    assert nearest("zzz", ["b", "a"]) == "known: 'a', 'b'."
    assert nearest("zzz", [f"name{number:02}" for number in range(20)]).endswith("'name11', ...")
    assert nearest("zzz", []) == "there is none."


def test_unknown_operating_system_errors_pass_through() -> None:
    with pytest.raises(BrokenPipeError), explain_os_errors("write", "file"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_explained_errors_name_the_action_and_the_path() -> None:
    with pytest.raises(UserError, match=r"^cannot write /x/y: the disk is full"), explain_os_errors("write", "/x/y"):
        raise OSError(errno.ENOSPC, "No space left on device")
