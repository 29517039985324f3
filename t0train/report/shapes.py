"""The keys that a report reads in the files of a run folder. A file of another shape is an error that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from t0train.config.suite import OVERLAPS
from t0train.core.errors import UserError

_MOST = 10**15  # of anything that is counted: floats hold it exactly
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_ROUNDING = 1e-9
_Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]  # an accuracy, a probability
_Points = Annotated[float, Field(ge=-2, le=2)]  # a difference of two shares, or the end of an interval
_Interval = Annotated[list[_Points], Field(min_length=2, max_length=2)]


class _Shape(BaseModel):
    """Keys with their types; those without a value must be there, others may stand beside them."""

    model_config = ConfigDict(extra="allow", strict=True)


class _OverPrompts(_Shape):
    median: _Share
    mean: _Share


class _Prompt(_Shape):
    name: str
    task: str
    identity: str = ""
    rows: _Count
    accuracy: _Share
    interval: _Interval | None = None
    chance: _Share
    majority: _Share
    gold_not_in_choices: _Count
    metrics: dict[str, _Share] = {}
    remarks: dict[str, _Count] = {}


class _Mistake(_Shape):
    prompt: str
    row: _Count
    input: str
    answer: str
    gold: str | None


class _Ranked(_OverPrompts):
    dataset: str
    split: str
    revision: str = ""
    normalise: str = "sum"
    rows: _Count
    interval: _Interval | None = None
    mean_interval: _Interval | None = None
    chance: _Share
    majority: _Share
    prompts: Annotated[list[_Prompt], Field(min_length=1)]
    metrics: dict[str, _OverPrompts] = {}
    metric_intervals: dict[str, _Interval] = {}
    metric_baselines: dict[str, dict[str, _Share]] = {}
    left_out: dict[str, str] = {}
    caveat: str = ""
    mistakes: list[_Mistake] = []


class _GeneratedPrompt(_Shape):
    name: str
    task: str
    identity: str = ""
    rows: _Count
    score: _Share
    interval: _Interval
    metrics: dict[str, _Share]
    remarks: dict[str, _Count] = {}


class _Generated(_OverPrompts):
    dataset: str
    split: str
    revision: str = ""
    metric: str
    rows: _Count
    interval: _Interval
    mean_interval: _Interval
    metrics: dict[str, _OverPrompts]
    metric_baselines: dict[str, dict[str, _Share]] = {}
    prompts: Annotated[list[_GeneratedPrompt], Field(min_length=1)]
    caveat: str = ""


class _Difference(_Shape):
    median: _Points
    mean: _Points
    name: str
    of: str
    minus: str
    items: _Count
    median_interval: _Interval
    mean_interval: _Interval


class _Probe(_Shape):
    name: str
    input: str
    output: str


class _Missing(_Shape):
    dataset: str
    split: str
    reason: str


class _Model(_Shape):
    name: str = "a model"
    run: str | None = None
    step: _Count | None = None
    checkpoint: str | None = None
    weights: str = ""


class _NotHeldOut(_Shape):
    kind: Literal["rows", "dataset", "family"]
    sentence: str


class _Results(_Shape):
    model: _Model
    seed: Annotated[int, Field(ge=-_MOST, le=_MOST)]
    limit: _Count | None = None
    tasks: list[_Ranked]
    generated: list[_Generated] = []
    differences: list[_Difference] = []
    probes: list[_Probe] = []
    missing: list[_Missing] = []
    not_held_out: dict[str, _NotHeldOut] | None = None
    files: dict[str, str] = {}


class _Candidate(_Shape):
    step: _Count
    score: _Share
    medians: dict[str, _Share]


class _Selection(_Shape):
    step: _Count
    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    left_out: dict[str, str]
    rule: str


class _Deviation(_Shape):
    sentence: str


class _Event(_Shape):
    kind: str


class _Start(_Shape):
    probabilities: dict[str, _Share] = {}
    mixture: str = ""
    remarks: list[str] = []


class _Step(_Shape):
    step: _Count
    cross_entropy: float
    tokens: _Count
    examples: _Count
    rows: Annotated[int, Field(ge=1, le=_MOST)]
    fill_inputs: _Share
    fill_targets: _Share
    tasks: dict[str, _Count] = {}


class _Speed(_Shape):
    step: _Count


class _Train(_Shape):
    steps: _Count = 0
    batch: dict[str, _Count | None] = {}


class _Config(_Shape):
    name: str = ""
    model: dict[str, Any] = {}
    mixture: dict[str, Any] = {}
    data: dict[str, Any] = {}
    train: _Train = _Train()
    optimizer: dict[str, Any] = {}


class _Example(_Shape):
    row: _Count
    share: _Share
    words: str
    trained_dataset: str
    trained_row: _Count


class _Overlap(_Shape):
    dataset: str
    split: str
    rows: _Count
    short: _Count
    touched: _Count
    overlapping: _Count
    sources: dict[str, _Count]
    examples: list[_Example]


class _Overlaps(_Shape):
    mixture: str
    ngram: _Count
    threshold: _Share
    overlaps: list[_Overlap]
    not_compared: dict[str, str]


_EVENTS: dict[str, type[_Shape]] = {"start": _Start, "step": _Step, "speed": _Speed}
_FILES: dict[str, Any] = {
    "config.resolved.yaml": _Config,
    "deviations.json": list[_Deviation],
    "results.json": _Results,
    "selection.json": _Selection,
    OVERLAPS: _Overlaps,
}
_MANY = 3  # problems that are named


def check_file(value: Any, path: Path) -> Any:
    """The content of one of the files of a run folder, by its name, if a report can read it.

    Raises:
        UserError: names the file and its first wrong keys.
    """
    try:
        TypeAdapter(_FILES[path.name]).validate_python(value)
    except ValidationError as error:
        raise UserError(_complaint(error, str(path))) from error
    return value


def check_event(event: Any, path: Path, line: int) -> dict[str, Any]:
    """A line of events.jsonl, if a report can read it. Raises as `check_file`."""
    try:
        kind = _Event.model_validate(event).kind
        if kind in _EVENTS:
            _EVENTS[kind].model_validate(event)
    except ValidationError as error:
        raise UserError(_complaint(error, f"{path}, line {line}")) from error
    found: dict[str, Any] = event
    return found


def _complaint(error: ValidationError, where: str) -> str:
    problems = error.errors(include_url=False)
    said = [f"{'.'.join(map(str, one['loc'])) or 'as a whole'}: {_said(one)}" for one in problems[:_MANY]]
    more = f"; and {len(problems) - _MANY} more" if len(problems) > _MANY else ""
    return (
        f"{where} is not what t0train writes: {'; '.join(said)}{more}. It is damaged, or of another program: have it "
        "written again, or remove it."
    )


def _said(problem: Any) -> str:
    if problem["type"] == "missing":
        return "missing"
    wants_keys = problem["type"] in ("model_type", "dict_type")
    message = "Input should be a mapping of keys to values" if wants_keys else str(problem["msg"])
    found = repr(problem["input"])
    return f"{message[0].lower()}{message[1:]}, found {found if len(found) <= 60 else found[:60] + ' ...'}"
