"""Mixture files: configs/mixtures/<name>.yaml or a user's own, each either T0's stages or changes on another file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from t0train.config.load import load_yaml, locate
from t0train.config.paths import ConfigPath
from t0train.config.schema import MixtureConfig, MixtureOverrides
from t0train.core.errors import UserError
from t0train.mixture.rates import CAP


class MixtureFile(MixtureOverrides):
    """A mixture as YAML: `stages` or `base`, and changes on it."""

    description: str = Field("", description="one sentence for `mixture list`")
    base: Annotated[str, ConfigPath(other="name")] = Field(
        "", description="name or path of the mixture that this one changes"
    )
    stages: list[Literal["BASE", "GPT_EVAL", "SGLUE", "catalogue"]] = Field(
        [], description="stages of T0's list that are trained on; `catalogue`: the datasets of data.catalogue"
    )

    @model_validator(mode="after")
    def _starts_somewhere(self) -> MixtureFile:
        if bool(self.base) == bool(self.stages):
            raise ValueError("give either `base` (a mixture to change) or `stages` (e.g. [BASE]), and not both")
        return self


@dataclass(frozen=True)
class Definition:
    """A mixture file with all that it is based on: where it starts, and the changes in order, the run's own last."""

    name: str
    description: str
    stages: tuple[str, ...]
    changes: tuple[MixtureOverrides, ...]

    @property
    def prompts(self) -> str | int:
        """Which templates of a dataset are used; the last word counts."""
        return _last((change.prompts for change in self.changes if change.prompts != "default"), "all")

    @property
    def rate(self) -> str:
        """Name of the rate function; the last word counts."""
        return _last((change.rate for change in self.changes if change.rate != "default"), "t0_cap")

    @property
    def cap(self) -> int:
        """Examples above which a rate is capped."""
        return _last((change.cap for change in self.changes if change.cap is not None), CAP)

    @property
    def temperature(self) -> float:
        """Temperature of the rates."""
        return _last((change.temperature for change in self.changes if change.temperature is not None), 1.0)


Value = TypeVar("Value")


def _last(values: Iterable[Value], default: Value) -> Value:
    found = list(values)
    return found[-1] if found else default


def read_definition(config: MixtureConfig) -> Definition:
    """The mixture that a run names, with the run's own changes on top.

    Raises:
        UserError: no such mixture, a bad key or value in a file, or files that are based on each other.
    """
    path = locate("mixtures", config.name)
    files = _chain(path, ())
    return Definition(path.stem, files[-1].description, tuple(files[0].stages), (*files, config))


def _chain(path: Path, above: Sequence[Path]) -> list[MixtureFile]:
    """The file and all that it is based on, the first one first."""
    if path.resolve() in above:
        raise UserError(f"the mixture {path} is based on itself by way of {above[-1]}; change one `base`.")
    file = load_yaml(MixtureFile, "mixtures", path)
    if not file.base:
        return [file]
    return [*_chain(locate("mixtures", file.base), (*above, path.resolve())), file]
