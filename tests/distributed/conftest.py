"""The small world of the training tests, with two models whose sizes nothing divides."""

from __future__ import annotations

from pathlib import Path

import pytest

from t0train.checkpoint import CheckpointWriter, Manifest
from t0train.config.architecture import T5Config
from t0train.config.deviations import VOCABULARY
from t0train.data import load_vocabulary
from t0train.distributed import World
from t0train.model import T5, init_weights
from tests.training.conftest import VOCABULARY_SIZE, one_thread, world

__all__ = ["models", "one_thread", "world"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A folder with the run folders `tied` and `untied`, to be given as model.init_from.

    Both are gated: a unit of T5 1.0's ReLU that lies within rounding of zero would make runs differ by a whole unit.
    """
    folder = tmp_path_factory.mktemp("models")
    manifest = Manifest(0, (0, 0), {VOCABULARY: load_vocabulary(world / "spiece.model").fingerprint}, "")
    for tied in (True, False):
        config = T5Config(VOCABULARY_SIZE + 1, 60, 13, 129, num_layers=2, num_heads=3, tie_word_embeddings=tied)
        model = T5(config)
        init_weights(dict(model.named_parameters()), config, seed=3)
        writer = CheckpointWriter(folder / ("tied" if tied else "untied") / "checkpoints", keep=1, world=World())
        writer.start({"model": dict(model.named_parameters()), "optimizer": {}}, config, manifest)
    return folder
