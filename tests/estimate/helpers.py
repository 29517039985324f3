from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from t0train.config.architecture import T5Config
from t0train.config.schema import OptimizerConfig
from t0train.data import build_rows
from t0train.estimate.memory import Workload
from t0train.model import Batch

ROWS, INPUTS, TARGETS = 2, 160, 56

# Every dimension differs from every other, so that a tensor's shape says what it is.
GATED = T5Config(vocab_size=72, d_model=136, d_kv=24, d_ff=264, num_layers=5, num_heads=4)
RELU = replace(GATED, is_gated=False, tie_word_embeddings=True)


def batch() -> Batch:
    """Packed rows, two segments each."""
    generator = np.random.default_rng(0)

    def ids(length: int) -> np.ndarray:
        return generator.integers(2, GATED.vocab_size, length).astype(np.uint16)

    rows = [[(ids(INPUTS // 2), [ids(TARGETS // 2)]) for _ in range(2)] for _ in range(ROWS)]
    return Batch.from_rows(build_rows(rows, INPUTS, TARGETS))


def workload(model: T5Config, **changes: object) -> Workload:
    """A step on one GPU over the rows of `batch`."""
    fields: dict[str, object] = {
        "model": model,
        "max_inputs": INPUTS,
        "max_targets": TARGETS,
        "micro_batch_rows": ROWS,
        "chunk": 1024,
        "precision": "bf16",
        "attention": "sdpa",
        "dropout": model.dropout,
        "dropout_style": model.dropout_style,
        "optimizer": OptimizerConfig(),
        "strategy": "single",
        "shards": 1,
        "zero_stage": 3,
        "checkpointing": "none",
        "count": 1,
    }
    return Workload(**{**fields, **changes})  # type: ignore[arg-type]


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """torch's fused kernel for CPUs, which keeps no scores, as those for GPUs. It needs a mask without gradient."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(query, key, value, mask, scale=scale)


def allocated(compute: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that `compute` has allocated: still alive with its result at the end, and most at a time."""
    gc.collect()  # what is freed later would count
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = compute()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    del result
    sizes = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return sizes[-1], max(sizes)
