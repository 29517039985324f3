"""One run in many processes: who they are, what they agree on, and how they share the model."""

from t0train.dist.engine import Engine, precision
from t0train.dist.place import Place, find_place
from t0train.dist.strategy import build_engine
from t0train.dist.world import World, join

__all__ = ["Engine", "Place", "World", "build_engine", "find_place", "join", "precision"]
