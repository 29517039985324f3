"""What is allowed in a run configuration, and yet hardly meant."""

from __future__ import annotations

from t0train.config.schema import RunConfig


def config_remarks(config: RunConfig) -> list[str]:
    """Sentences that a command prints before it goes on; none for a configuration without such values."""
    found = []
    optimizer, steps = config.optimizer, config.train.steps
    if optimizer.warmup > steps:
        highest = optimizer.lr * steps / optimizer.warmup
        found.append(
            f"optimizer.warmup is {optimizer.warmup:,} and the run has {steps:,} steps: the learning rate ends at "
            f"{highest:g} and never reaches optimizer.lr ({optimizer.lr:g})"
        )
    if config.data.max_targets == 1:
        found.append("data.max_targets is 1: nothing is left of a target but the </s> that closes it")
    if config.data.max_inputs == 1:
        found.append("data.max_inputs is 1: nothing is left of an input but its first token")
    return found
