"""The event log: appending, reading past a crash, rewinding for a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t0train.core.errors import UserError
from t0train.core.events import EventLog, read_events


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def test_one_json_object_a_line(log: EventLog) -> None:
    log.append("start", name="zwölf\nlines")
    log.append("step", step=1, tasks={"a": 3})
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "start", "name": "zwölf\nlines"},
        {"kind": "step", "step": 1, "tasks": {"a": 3}},
    ]
    assert list(read_events(log.path, "step")) == [{"kind": "step", "step": 1, "tasks": {"a": 3}}]


def test_half_a_line_at_the_end_is_left_out(log: EventLog) -> None:
    log.append("step", step=1)
    whole = log.path.read_bytes()
    log.append("step", step=2)
    line = log.path.read_bytes()[len(whole) :]
    for cut in range(len(line)):  # killed after any number of bytes
        log.path.write_bytes(whole + line[:cut])
        assert [event["step"] for event in read_events(log.path)] == [1]


def test_appending_after_a_crash_starts_a_new_line(log: EventLog) -> None:
    log.append("step", step=1)
    with log.path.open("a") as stream:
        stream.write('{"kind": "st')
    log.rewind(1)
    log.append("step", step=2)
    assert [event["step"] for event in read_events(log.path)] == [1, 2]


def test_rewind_drops_later_steps_of_every_kind(log: EventLog) -> None:
    log.append("start")
    for step in (1, 2, 3):
        log.append("step", step=step)
        log.append("speed", step=step)
    log.rewind(2)
    assert [(event["kind"], event.get("step")) for event in read_events(log.path)] == [
        ("start", None), ("step", 1), ("speed", 1), ("step", 2), ("speed", 2),
    ]  # fmt: skip


def test_rewind_to_the_same_bytes(log: EventLog) -> None:
    log.append("step", step=1, loss=0.1 + 0.2, name="ü")
    before = log.path.read_bytes()
    log.append("step", step=2)
    log.rewind(1)
    assert log.path.read_bytes() == before


def test_rewind_of_a_log_that_does_not_exist(log: EventLog) -> None:
    log.rewind(0)
    assert not log.path.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[1]",
        b"3",
        b"null",
        b"{}",
        b'{"kind": 3}',
        b'{"kind": "step", "step": "many"}',
        b'{"kind": "step", "step": true}',
        b"\xff\xfe",
        b"\x00\x00",
        b"",
        b"[" * 100_000,
        b'{"kind": "step", "text": "' + b"x" * (17 << 20) + b'"}',
    ],
    ids=lambda line: repr(line[:20]),
)
def test_a_line_that_is_no_event_is_named(log: EventLog, line: bytes) -> None:
    log.append("start")
    with log.path.open("ab") as stream:
        stream.write(line + b"\n")
    log.append("step", step=1)
    before = log.path.read_bytes()
    with pytest.raises(UserError, match=r"events\.jsonl is damaged: line 2 is no event"):
        list(read_events(log.path))
    with pytest.raises(UserError, match=r"events\.jsonl is damaged: line 2 is no event"):
        log.rewind(1)
    assert log.path.read_bytes() == before


def test_events_of_unknown_kinds_are_read(log: EventLog) -> None:
    log.append("of a later version", step=1, further=[1])
    log.rewind(1)
    assert list(read_events(log.path)) == [{"kind": "of a later version", "step": 1, "further": [1]}]
