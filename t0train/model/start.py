"""The model that a run starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from t0train.config import RunConfig
from t0train.config.architecture import T5Config
from t0train.core.seeds import derive_seed
from t0train.model.build import init_weights, meta_model, sized_config
from t0train.model.load import open_weights
from t0train.model.t5 import T5
from t0train.model.weights import LoadReport

Fill = Callable[[Mapping[str, Tensor]], None]
"""Writes weights into a model's parameters, given by name and in the model's order, whole or in parts (DTensors)."""


@dataclass(frozen=True)
class Start:
    """What a run starts from. Nothing is in memory yet.

    Attributes:
        config: the architecture, with the run's dropout.
        fill: writes the weights into a model that was built without memory (`meta_model`), perhaps cut up among
            processes, and then given memory.
        report: of the weights' files; None for random weights.
    """

    config: T5Config
    fill: Fill
    report: LoadReport | None = None


def open_start(config: RunConfig) -> Start:
    """The start of a run: random weights keyed by its seed, or those that `model.start` names.

    Raises:
        UserError: the weights cannot be had or are not a T5.
    """
    settings = config.model
    if settings.start != "random":
        weights = open_weights(settings.start, dropout=settings.dropout, dropout_style=settings.dropout_style)
        return Start(weights.config, weights.fill, weights.report)
    architecture = sized_config(
        settings.size,
        vocab_size=settings.vocabulary_size,
        dropout=settings.dropout,
        dropout_style=settings.dropout_style,
    )
    seed = derive_seed(config.seed, "weights")
    return Start(architecture, lambda parameters: init_weights(parameters, architecture, seed))


def start_model(config: RunConfig) -> T5:
    """The whole model that a run starts from, on the CPU; see `open_start`."""
    start = open_start(config)
    model = meta_model(start.config, config.model.attention).to_empty(device="cpu")
    start.fill(dict(model.named_parameters()))
    return model
