"""The model under evaluation: a run, a checkpoint of it, an exported folder or a hub id, with its own vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from t0train.config import RunConfig, load_config, run_identity
from t0train.core.errors import UserError
from t0train.core.files import refuse_linked_folders
from t0train.core.hashing import file_sha256
from t0train.core.run_folder import MANIFEST, RunFolder, similar_folders, step_of
from t0train.data import Vocabulary, load_vocabulary
from t0train.data.vocabulary import MODEL_NAME
from t0train.model import T5, check_vocabulary, find_weights, initial_model, is_hub_id, load_model, open_run_checkpoint
from t0train.results import EvaluatedModel


@dataclass(frozen=True)
class ModelReference:
    """A model by name, with the configuration of its run: all that is read of it before its weights are.

    Attributes:
        source: a run folder, a checkpoint of a run, an exported folder, or a hub id.
        untrained: the run's model as it was before step 1.
        folder: run folder; None for an exported folder or a hub id.
        run: configuration of the run; None as above.
    """

    source: str
    untrained: bool = False
    folder: RunFolder | None = None
    run: RunConfig | None = None

    @classmethod
    def of(cls, source: str | Path, untrained: bool = False) -> ModelReference:
        """Look for a run at `source`; see the attributes.

        Raises:
            UserError: the run's configuration is damaged.
        """
        folder = RunFolder.of(source)
        return cls(str(source), untrained, folder, load_config(folder.config) if folder else None)

    @property
    def name(self) -> str:
        """The name of the run; of anything else, its folder or hub id: `./exported/` is `exported`."""
        return self.run.name if self.run else str(Path(self.source))

    @property
    def facts(self) -> EvaluatedModel:
        """What is known of the model before its weights are read."""
        run = run_identity(self.run) if self.run else None
        return EvaluatedModel(name=self.name, run=run, untrained=self.untrained)

    def check_exists(self) -> None:
        """Refuse what is neither a run, nor a folder with a model, nor like a hub id; nothing is read or fetched.

        Raises:
            UserError: says what was expected.
        """
        if self.folder is None and not is_hub_id(self.source):
            find_weights(self.source)

    def explain_no_suite(self) -> str:
        """Why a suite must be named for it."""
        if (folder := Path(self.source).expanduser()).exists():
            return "no suite: the model's run names none"
        hint = similar_folders(folder)
        return (
            f"there is no folder {self.source}{hint and f' ({hint})'}; if it is a model of the hub, no suite was "
            "chosen for it"
        )

    def results_folder(self, suite: str) -> Path:
        """`RUN/eval/SUITE`, else `eval/MODEL/SUITE` where the command is run.

        Checkpoints that are not what the run folder itself gives (its selected checkpoint, else its newest) have a
        folder of their own within it, `RUN/eval/SUITE/step-XXXXXXXX`.

        Args:
            suite: name of the suite.

        Raises:
            UserError: symbolic links in `RUN/eval/SUITE` would have results written somewhere else.
        """
        if self.folder is None:
            return Path("eval", self.name.strip("/").replace("/", "--"), suite)
        inside = self.folder.results(suite, self.untrained)
        source = Path(self.source).expanduser()
        if not self.untrained and step_of(source) is not None and self.folder.find_checkpoint().name != source.name:
            inside /= source.name
        refuse_linked_folders(self.folder.path, inside)
        return inside


@dataclass(frozen=True)
class EvalModel:
    """A model ready to be evaluated.

    Attributes:
        model: on the device that it shall run on.
        vocabulary: that it was trained with.
        facts: what results record of it.
    """

    model: T5
    vocabulary: Vocabulary
    facts: EvaluatedModel = field(default_factory=EvaluatedModel)


def open_model(source: str | Path | ModelReference, untrained: bool = False) -> EvalModel:
    """Load a model with its vocabulary, on the GPU if there is one.

    Args:
        source: run folder (its selected checkpoint, else the newest), checkpoint, exported folder, or hub id.
        untrained: the run's model as it was before the first step.

    Raises:
        UserError: nothing there, a damaged checkpoint, another vocabulary than the run was trained with, or `untrained`
            of something that is no run.
    """
    reference = source if isinstance(source, ModelReference) else ModelReference.of(source, untrained)
    folder = reference.folder
    if folder is None:
        if reference.untrained:
            raise UserError(
                f"--untrained needs a run folder, whose configuration says how the model began; not {reference.source}."
            )
        model = placed(load_model(reference.source))
        return EvalModel(model, open_vocabulary(reference), reference.facts)
    if reference.untrained:
        run, vocabulary = _open_untrained(reference)
        facts = reference.facts.model_copy(update={"step": 0, "selected": folder.selected_step() == 0})
        return EvalModel(placed(initial_model(run), run.train.device), vocabulary, facts)
    found = open_run_checkpoint(reference.source, config=reference.run)
    assert found is not None
    model = placed(load_model(found.path), found.config.train.device)
    checkpoint = {
        "step": found.step,
        "checkpoint": file_sha256(found.path / MANIFEST),
        "untrained": found.step == 0,
        "selected": folder.selected_step() == found.step,
    }
    return EvalModel(model, found.vocabulary, reference.facts.model_copy(update=checkpoint))


def _open_untrained(reference: ModelReference) -> tuple[RunConfig, Vocabulary]:
    """What a run begins from; compared with its checkpoint if it has one already."""
    assert reference.folder is not None
    assert reference.run is not None
    if reference.folder.list_complete():
        found = open_run_checkpoint(reference.folder.path, config=reference.run)
        assert found is not None
        return found.config, found.vocabulary
    return reference.run, load_vocabulary(reference.run.data.vocabulary)


def open_vocabulary(reference: ModelReference) -> Vocabulary:
    """The vocabulary of a model, without the model; see `open_model`.

    Raises:
        UserError: it has none, or another one than it was trained with.
    """
    if reference.untrained and reference.folder:
        return _open_untrained(reference)[1]
    if found := open_run_checkpoint(reference.source, config=reference.run):
        return found.vocabulary
    folder = Path(reference.source).expanduser()
    if folder.is_dir() and not (folder / MODEL_NAME).is_file():
        raise UserError(
            f"{reference.source} has no {MODEL_NAME}: the sentencepiece model that a model was trained with makes "
            "its tokens; put it there (`t0train export` does)."
        )
    vocabulary = load_vocabulary(reference.source)
    check_vocabulary(find_weights(reference.source), vocabulary)
    return vocabulary


def placed(model: T5, device: str = "auto") -> T5:
    """On the GPU if there is one and it is wanted."""
    return model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu").eval()
