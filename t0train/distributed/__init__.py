"""One run in many processes: who they are, what they agree on, and how they share the model."""

from t0train.distributed.agreement import code_and_settings, require_agreement
from t0train.distributed.engine import Engine, precision
from t0train.distributed.place import Place, find_place
from t0train.distributed.strategy import build_engine
from t0train.distributed.world import World, join

__all__ = [
    "Engine",
    "Place",
    "World",
    "build_engine",
    "code_and_settings",
    "find_place",
    "join",
    "precision",
    "require_agreement",
]
