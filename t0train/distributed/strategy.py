"""From `train.strategy` to its engine."""

from __future__ import annotations

from t0train.config import RunConfig
from t0train.config.resolve import resolve_replicas, resolve_strategy
from t0train.distributed.engine import DdpEngine, Engine
from t0train.distributed.fsdp import FsdpEngine
from t0train.distributed.world import World
from t0train.model import T5


def build_engine(model: T5, config: RunConfig, world: World) -> Engine:
    """The engine of the run's strategy around a model; arguments as for `Engine`."""
    strategy = resolve_strategy(config.train, world.size)
    if strategy == "single":
        return Engine(model, config, world)
    if strategy == "ddp":
        return DdpEngine(model, config, world)
    if strategy == "deepspeed":
        from t0train.distributed.zero import ZeroEngine

        return ZeroEngine(model, config, world)
    replicas = resolve_replicas(config.train, world.size, world.place.local_size) if strategy == "hsdp" else 1
    return FsdpEngine(model, config, world, replicas)
