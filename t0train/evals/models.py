"""The model that is evaluated: a run, a checkpoint of it, an exported folder or a hub id, with its own vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from t0train.config import RunConfig, load_config, run_identity
from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256
from t0train.core.run_folder import MANIFEST, RunFolder
from t0train.data import Vocabulary, load_vocabulary
from t0train.data.vocabulary import MODEL_NAME
from t0train.model import (
    T5,
    check_vocabulary,
    find_weights,
    initial_model,
    is_hub_id,
    load_model,
    open_run_checkpoint,
    run_config_of,
)
from t0train.results import EvaluatedModel


@dataclass(frozen=True)
class Subject:
    """A model with what is needed to evaluate it.

    Attributes:
        name: of the run, else the folder or hub id as given.
        model: on the GPU if there is one.
        vocabulary: that it was trained with.
        run: configuration of its run; None for an exported folder or a hub id.
        folder: run folder; None as above.
        step: of the checkpoint; 0 untrained; None as above.
        checkpoint: SHA-256 of the checkpoint's manifest; None if the model is of none.
    """

    name: str
    model: T5
    vocabulary: Vocabulary
    run: RunConfig | None = None
    folder: RunFolder | None = None
    step: int | None = None
    checkpoint: str | None = None

    @property
    def facts(self) -> EvaluatedModel:
        """What a results file says of the model."""
        selected = self.folder is not None and self.step is not None and self.folder.selected_step() == self.step
        return EvaluatedModel(
            name=self.name,
            run=run_identity(self.run) if self.run else None,
            step=self.step,
            checkpoint=self.checkpoint,
            untrained=self.step == 0,
            selected=selected,
        )


def open_model(source: str | Path, untrained: bool = False) -> Subject:
    """Load a model with its vocabulary, ready to be evaluated.

    Args:
        source: run folder (its selected checkpoint, else the newest), checkpoint, exported folder, or hub id.
        untrained: the run's model as it was before the first step.

    Raises:
        UserError: nothing there, a damaged checkpoint, another vocabulary than the run was trained with, or `untrained`
            of something that is no run.
    """
    source = str(source)
    folder = RunFolder.of(source)
    if folder is None:
        if untrained:
            raise UserError(
                f"--untrained needs a run folder, whose configuration says how the model began; not {source}."
            )
        return Subject(model_name(source), placed(load_model(source)), open_vocabulary(source))
    if untrained:
        run, vocabulary = _open_untrained(folder)
        return Subject(run.name, placed(initial_model(run), run.train.device), vocabulary, run, folder, 0)
    found = open_run_checkpoint(source)
    assert found is not None
    model = placed(load_model(found.path), found.config.train.device)
    digest = file_sha256(found.path / MANIFEST)
    return Subject(found.config.name, model, found.vocabulary, found.config, folder, found.step, digest)


def _open_untrained(run: RunFolder) -> tuple[RunConfig, Vocabulary]:
    """What a run begins from; compared with its checkpoint if it has one already."""
    if run.list_complete() and (found := open_run_checkpoint(run.path)):
        return found.config, found.vocabulary
    config = load_config(run.config)
    return config, load_vocabulary(config.data.vocabulary)


def open_vocabulary(source: str, untrained: bool = False) -> Vocabulary:
    """The vocabulary of a model, without the model; see `open_model`.

    Raises:
        UserError: it has none, or another one than it was trained with.
    """
    run = RunFolder.of(source)
    if run and untrained:
        return _open_untrained(run)[1]
    if found := open_run_checkpoint(source):
        return found.vocabulary
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / MODEL_NAME).is_file():
        raise UserError(
            f"{source} has no {MODEL_NAME}: the sentencepiece model that a model was trained with makes its tokens; "
            "put it there (`t0train export` does)."
        )
    vocabulary = load_vocabulary(source)
    check_vocabulary(find_weights(source), vocabulary)
    return vocabulary


def refuse_no_model(source: str) -> None:
    """Refuse what is neither a run, nor a folder with a model, nor like a hub id; nothing is read or fetched.

    Raises:
        UserError: says what was expected.
    """
    if RunFolder.of(source) is None and not is_hub_id(source):
        find_weights(source)


def model_name(source: str) -> str:
    """The name of the run; of anything else, its folder or hub id: `./exported/` is `exported`."""
    run = run_config_of(source)
    return run.name if run else str(Path(source))


def placed(model: T5, device: str = "auto") -> T5:
    """On the GPU if there is one and it is wanted."""
    return model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu").eval()
