"""Weights that go into the parts of a model that is spread over processes.

One process plays each rank in turn: torch's `fake` process group never communicates, and filling must not need to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from t0train.config import RunConfig
from t0train.model import (
    T5,
    Fill,
    T5Config,
    init_model,
    init_weights,
    load_model,
    meta_model,
    open_initial_weights,
    open_weights,
)
from tests.model.oracle import V10, V11, make_model


@contextmanager
def rank_of(rank: int, size: int) -> Iterator[None]:
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def parts(config: T5Config, fill: Fill, rank: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What a rank of an FSDP (3,) or HSDP (copies, 3) mesh holds after filling."""
    with rank_of(rank, int(torch.tensor(shape).prod())):
        # torch remembers meshes by shape and names, and would take this rank's for another's
        names = tuple(f"{name} as seen by {rank}" for name in ("copy", "shard"))
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names[-len(shape) :])
        model = meta_model(config)
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model.to_empty(device="cpu")
        named = dict(model.named_parameters())
        fill(named)
        shards = {name: parameter.detach() for name, parameter in named.items()}
        assert all(isinstance(shard, DTensor) for shard in shards.values())
        return {name: shard.to_local().clone() for name, shard in shards.items() if isinstance(shard, DTensor)}


def save(model: T5, folder: Path) -> Path:
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_hf()))
    return folder


@pytest.mark.parametrize("config", [V11, V10], ids=["v1.1", "v1.0"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)], ids=["fsdp", "hsdp"])
def test_each_rank_gets_its_rows(tmp_path: Path, config: T5Config, shape: tuple[int, ...]) -> None:
    """97 rows of embedding, 24 and 32 of the projections, 3 heads: uneven shards, and empty ones."""
    model = make_model(config)
    weights = open_weights(save(model, tmp_path), dropout=0.0)
    assert weights.config == config
    for rank in range(3):
        held = parts(weights.config, weights.fill, rank, shape)
        for name, whole in model.state_dict().items():
            chunks = whole.chunk(3)
            expected = chunks[rank] if rank < len(chunks) else whole[:0]
            assert torch.equal(held[name], expected), (rank, name)


def test_random_weights_do_not_depend_on_the_number_of_processes() -> None:
    whole = init_model("tiny", seed=5, vocab_size=50)

    def fill(parameters: Mapping[str, Tensor]) -> None:
        init_weights(parameters, whole.config, 5)

    held = [parts(whole.config, fill, rank, (3,)) for rank in range(3)]
    for name, parameter in whole.named_parameters():
        assert torch.equal(torch.cat([part[name] for part in held]), parameter), name


def test_the_start_of_a_run_is_opened_without_being_read(tmp_path: Path) -> None:
    model = make_model(V11)
    config = RunConfig.model_validate({"model": {"init_from": str(save(model, tmp_path)), "dropout": 0.3}})
    start = open_initial_weights(config)
    assert start.config.dropout == 0.3
    started = meta_model(start.config).to_empty(device="cpu")
    start.fill(dict(started.named_parameters()))
    assert all(torch.equal(tensor, started.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert start.report is not None


def anonymous_peak(function: Callable[[], object]) -> int:
    """Highest growth of this process's own memory (not of mapped files) while `function` runs, in bytes."""
    import threading

    def own() -> int:
        text = Path("/proc/self/status").read_text()
        return 1024 * int(text.split("RssAnon:")[1].split()[0])

    before, highest, done = own(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(highest, own()) - before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_loading_takes_the_memory_of_one_copy(tmp_path: Path) -> None:
    model = init_model("tiny", vocab_size=60_000)  # 63 MB
    size = sum(parameter.nbytes for parameter in model.parameters())
    save(model, tmp_path)
    kept = []
    assert anonymous_peak(lambda: kept.append(load_model(tmp_path))) < 1.2 * size
    assert torch.equal(kept[0].lm_head.weight, model.lm_head.weight)
