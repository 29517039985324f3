"""`t0train export`: a run's model as a folder that Hugging Face's classes load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t0train.core.console import say

if TYPE_CHECKING:
    from t0train.config import RunConfig
    from t0train.mixture import Mixture


def command(
    run: Annotated[Path, typer.Argument(help="run folder")],
    out: Annotated[Path, typer.Argument(help="new folder for the model")],
    step: Annotated[
        int | None, typer.Option(help="Checkpoint to export; default: the selected one, else the newest.")
    ] = None,
) -> None:
    """Write a run's model as safetensors with tokenizer and model card, and check that its logits are unchanged.

    The card (README.md) holds the mixture, the differences from T0's training, and the results of `t0train eval` on
    this checkpoint, with their caveats.

    Example: t0train export runs/toy/run exported/toy
    """
    from t0train.core.errors import UserError
    from t0train.core.files import refuse_foreign
    from t0train.core.run_folder import RunFolder
    from t0train.evals import fingerprint
    from t0train.mixture import by_dataset
    from t0train.model import export_model, load_model, open_run_checkpoint
    from t0train.report import TrainedDataset, build_card

    found = open_run_checkpoint(run, step)
    if found is None:
        raise RunFolder.refusal(run)
    if found.run.checkpoints.resolve() in [out.resolve(), *out.resolve().parents]:
        raise UserError(f"{out} lies among the run's checkpoints; choose a folder elsewhere.")
    refuse_foreign(out)  # before the weights are read
    model = load_model(found.path)
    say(f"{model.report}{' (selected)' if found.run.selected_step() == found.step else ''}")
    mixture = _mixture(found.config)
    datasets = [
        TrainedDataset(f"{row.dataset}/{row.subset}".rstrip("/"), row.templates, row.probability)
        for row in (by_dataset(mixture.table()) if mixture else [])
    ]
    hub_ids = [dataset.hub_id for dataset in mixture.datasets if dataset.hub_id] if mixture else []
    card = build_card(found.run.path, found.step, datasets, hub_ids, fingerprint(model))
    print(export_model(model, out, found.vocabulary.path, card.text, card.header))


def _mixture(config: RunConfig) -> Mixture | None:
    """The run's mixture; None if its templates or rows are gone."""
    from t0train.core.errors import UserError
    from t0train.mixture import build_mixture

    try:
        return build_mixture(config.mixture, config.data)
    except UserError as error:
        say(f"note: the card has no mixture table: {error}")
        return None
