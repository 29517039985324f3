"""What only a GPU can show: backends, packing, optimizer, real runs, memory against the estimate, and speed.

    python scripts/gpu_check.py --size base --speed-size large --out gpu_check.json

Prints a table, writes JSON, exits 1 if a check failed, and 0 where there is no GPU. `--device cpu --size tiny
--speed-size tiny` goes through the same code without one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from gpu_findings import EXACT, Finding, Setting
from gpu_train import check_training
from rich.console import Console
from rich.table import Table
from synthetic import random_model
from torch import Tensor

from t0train.config import RunConfig
from t0train.config.architecture import SIZES
from t0train.config.schema import OptimizerConfig
from t0train.core.errors import UserError, nearest
from t0train.distributed import Engine, World
from t0train.estimate import DEVICES, estimate
from t0train.estimate.flops import row_flop
from t0train.model import T5, Batch, check_packing, compile_blocks, init_model, initial_model, loss
from t0train.model.activation_checkpointing import Recompute
from t0train.optim import build_optimizer

Check = Callable[[Setting], Iterator[Finding]]
GIB = 2**30
_OPTIMIZER, _MEMORY = 1e-3, 0.10  # largest relative distances; in bf16 twice that of the plain model in bf16 from fp32


def autocast(setting: Setting, precision: str) -> torch.autocast:
    return torch.autocast(setting.device.type, torch.bfloat16, enabled=precision == "bf16")


def states_and_gradients(
    setting: Setting, attention: str, precision: str, checkpointing: Recompute = "none", compiled: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states of the real targets, and gradients by name, on the CPU."""
    torch._dynamo.reset()  # what other arms compiled does not count against this one
    model = random_model(setting.size, attention, setting.device, dropout=0.1)
    model.checkpoint_activations(checkpointing)
    if compiled:  # on a CPU generating code would take minutes
        compile_blocks(model, setting.device, "inductor" if setting.is_gpu else "aot_eager")
    batch = Batch.from_rows(setting.batch(), setting.device, seed=7)
    with autocast(setting, precision):
        states = model.decode_states(batch)[batch.labels > 0]
        loss(model, batch, denominator=float(batch.labels.numel())).total.backward()
    return states.detach().float().cpu(), {
        name: p.grad.float().cpu() for name, p in model.named_parameters() if p.grad is not None
    }


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest distance of a gradient, and its name."""
    return max((distance(found[name], value), name) for name, value in expected.items())


def check_backends(setting: Setting) -> Iterator[Finding]:
    """States and gradients of each backend against eager's in fp32, with dropout."""
    states, gradients = states_and_gradients(setting, "eager", "fp32")

    def distances(attention: str, precision: str) -> tuple[float, float, str]:
        found, found_gradients = states_and_gradients(setting, attention, precision)
        return distance(found, states), *furthest(found_gradients, gradients)

    rough = distances("eager", "bf16")
    for precision, limits in (("fp32", (EXACT, 10 * EXACT)), ("bf16", (2 * rough[0], 2 * rough[1]))):
        for attention in setting.backends:
            of_states, of_gradients, worst = distances(attention, precision)
            arm = f"{attention} {precision}"
            yield Finding("states = eager's", arm, f"{of_states:.1e}", of_states <= limits[0], of_states)
            found = f"{of_gradients:.1e} ({worst})"
            yield Finding("gradients = eager's", arm, found, of_gradients <= limits[1], of_gradients)


def check_blocks(setting: Setting) -> Iterator[Finding]:
    """Gradients with blocks compiled or computed again against those of the same backend without, in fp32."""
    for attention in ("eager", "sdpa", *(("flex",) if setting.is_gpu else ())):
        _, plain = states_and_gradients(setting, attention, "fp32")
        rough, _ = furthest(states_and_gradients(setting, attention, "bf16")[1], plain)
        kinds: tuple[Recompute, ...] = ("block",) if attention == "flex" else ("block", "selective")
        for precision, limit in (("fp32", 10 * EXACT), ("bf16", 2 * rough)):
            for checkpointing, compiled in (*((kind, False) for kind in kinds), ("none", True)):
                _, found = states_and_gradients(setting, attention, precision, checkpointing, compiled)
                off, worst = furthest(found, plain)
                arm = f"{attention} {precision}, {'compiled' if compiled else f'checkpointing {checkpointing}'}"
                yield Finding("gradients = plain ones", arm, f"{off:.1e} ({worst})", off <= limit, off)


def check_packed_rows(setting: Setting) -> Iterator[Finding]:
    """Examples on a packed row against the same examples alone, in bf16: the packing self-check."""
    for attention in ("eager", *setting.backends):
        model = random_model(setting.size, attention, setting.device)
        try:
            with autocast(setting, "bf16"):
                check_packing(model, setting.batch())
        except UserError as error:
            yield Finding("packed = alone", f"{attention} bf16", str(error), False)
        else:
            yield Finding("packed = alone", f"{attention} bf16", "within the self-check's tolerance", True)


def check_optimizer(setting: Setting) -> Iterator[Finding]:
    """Five updates of the same gradients on the CPU and on the device."""
    for name in ("adafactor", "adamw"):
        here, there = (init_model(setting.size, seed=0) for _ in range(2))
        there.to(setting.device)
        before = {key: value.clone() for key, value in here.state_dict().items()}
        optimizers = [build_optimizer(model.named_parameters(), OptimizerConfig(name=name)) for model in (here, there)]
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            for one, other in zip(here.parameters(), there.parameters(), strict=True):
                one.grad = torch.randn(one.shape, generator=generator)
                other.grad = one.grad.to(setting.device)
            for optimizer in optimizers:
                optimizer.step()
        worst = max(
            float((value.cpu() - here.state_dict()[key]).norm() / (here.state_dict()[key] - before[key]).norm())
            for key, value in there.state_dict().items()
        )
        yield Finding("updates = the CPU's", name, f"{worst:.1e} of the movement", worst <= _OPTIMIZER, worst)


def run_config(setting: Setting, attention: str, checkpointing: str = "none") -> RunConfig:
    model = {"init_from": "random", "size": setting.speed_size, "attention": attention}
    data = {"max_inputs": setting.max_inputs, "max_targets": setting.max_targets}
    batch = {"rows": 2 * setting.rows, "micro_batch_rows": setting.rows}
    train = {"batch": batch, "activation_checkpointing": checkpointing}
    return RunConfig.model_validate({"model": model, "data": data, "train": train})


def make_engine(setting: Setting, config: RunConfig, compiled: bool = False) -> Engine:
    torch._dynamo.reset()
    model: T5 = initial_model(config).to(setting.device)
    model.checkpoint_activations(config.train.activation_checkpointing)
    if compiled:
        compile_blocks(model, setting.device)
    return Engine(model, config, World(device=setting.device))


def do_step(engine: Engine, batch: Batch) -> None:
    """An optimizer step of two micro-batches."""
    for is_last in (False, True):
        engine.backward(batch, denominator=2.0 * batch.labels.numel(), is_last=is_last)
    engine.step(1e-3)


def check_memory(setting: Setting) -> Iterator[Finding]:
    """Peak of two steps against the estimate."""
    attentions = ("sdpa", "flex", "eager") if setting.is_gpu else ("sdpa", "eager")
    for attention in attentions:
        for checkpointing in ("none", "block", *(("selective",) if attention == "sdpa" else ())):
            config = run_config(setting, attention, checkpointing)
            estimated = estimate(config, next(iter(DEVICES))).memory.total
            engine = make_engine(setting, config)
            if setting.is_gpu:
                torch.cuda.reset_peak_memory_stats(setting.device)
            for _ in range(2):
                do_step(engine, Batch.from_rows(setting.batch(), setting.device))
            arm = f"{setting.speed_size}, {setting.rows} rows, {attention}, checkpointing {checkpointing}"
            found = f"estimate {estimated / GIB:.2f} GiB"
            if not setting.is_gpu:
                yield Finding("memory = estimate", arm, f"{found}, not measured")
                continue
            peak = torch.cuda.max_memory_allocated(setting.device)
            ratio = estimated / peak
            found += f", measured {peak / GIB:.2f} GiB ({100 * (ratio - 1):+.0f} %)"
            yield Finding("memory = estimate", arm, found, abs(ratio - 1) <= _MEMORY, ratio)
            del engine
            torch.cuda.empty_cache()


def peak_flop(setting: Setting) -> float | None:
    """bf16 peak of the device that utilisation is stated against; None for one that the estimate does not know."""
    if not setting.is_gpu:
        return None
    name = torch.cuda.get_device_name(setting.device).lower()
    size = torch.cuda.get_device_properties(setting.device).total_memory
    found = [device for key, device in DEVICES.items() if key.split("-")[0] in name]
    return min(found, key=lambda device: abs(device.memory_bytes - size)).bf16_flop_per_s if found else None


def check_speed(setting: Setting) -> Iterator[Finding]:
    """Rows per second and MFU, by backend, compiled and not. Nothing to pass: docs/benchmarks.md takes them up."""
    flop = row_flop(SIZES[setting.speed_size], setting.max_inputs, setting.max_targets).train
    for attention in ("eager", *setting.backends):
        for compiled in (False, True) if setting.is_gpu else (False,):
            engine = make_engine(setting, run_config(setting, attention), compiled)
            batch = Batch.from_rows(setting.batch(), setting.device)
            for _ in range(2 if setting.is_gpu else 0):
                do_step(engine, batch)
            seconds = timed(setting, partial(do_step, engine, batch))
            rate = 2 * setting.rows / seconds
            peak = peak_flop(setting)
            mfu = f", MFU {rate * flop / peak:.3f}" if peak else ""
            arm = f"{setting.speed_size}, {attention}{', compiled' if compiled else ''}"
            yield Finding("speed", arm, f"{rate:.2f} rows/s{mfu}", number=rate)
            del engine
            if setting.is_gpu:
                torch.cuda.empty_cache()


def timed(setting: Setting, step: Callable[[], None]) -> float:
    """Mean seconds of a step."""
    if setting.is_gpu:
        torch.cuda.synchronize(setting.device)
    started = time.perf_counter()
    for _ in range(setting.steps):
        step()
    if setting.is_gpu:
        torch.cuda.synchronize(setting.device)
    return (time.perf_counter() - started) / setting.steps


def findings_of(check: Check, setting: Setting) -> Iterator[Finding]:
    """What a check finds; an error is a finding too, because the other checks may say why."""
    try:
        yield from check(setting)
    except Exception as error:
        yield Finding(check.__name__, "", f"{type(error).__name__}: {error}", False)


CHECKS: tuple[Check, ...] = (
    check_backends,
    check_blocks,
    check_packed_rows,
    check_optimizer,
    check_training,
    check_memory,
    check_speed,
)


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu for a dry run")] = "cuda",
    size: Annotated[str, typer.Option(help="model of the equality checks")] = "base",
    speed_size: Annotated[
        str, typer.Option(help="model of the memory and speed checks: the largest that fits")
    ] = "large",
    rows: Annotated[int, typer.Option(help="packed rows at once")] = 4,
    max_inputs: Annotated[int, typer.Option(help="positions of a row's input side")] = 1024,
    max_targets: Annotated[int, typer.Option(help="positions of a row's target side")] = 256,
    steps: Annotated[int, typer.Option(help="steps that are timed")] = 10,
    out: Annotated[Path, typer.Option(help="where the findings go as JSON")] = Path("gpu_check.json"),
) -> None:
    """Run the checks and print what they found."""
    if device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device (a dry run without one: --device cpu --size tiny --speed-size tiny)")
        return
    for name in (size, speed_size):
        if name not in SIZES:
            raise typer.BadParameter(f"there is no model size {name!r}; {nearest(name, SIZES)}")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    setting = Setting(torch.device(device), size, speed_size, rows, max_inputs, max_targets, steps)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu (dry run)"
    findings: list[Finding] = []
    table = Table("check", "arm", "found", "", title=f"{name}, torch {torch.__version__}")
    for check in CHECKS:
        print(f"{check.__name__} ...", file=sys.stderr)
        for finding in findings_of(check, setting):
            mark = {True: "PASS", False: "FAIL", None: ""}[finding.ok]
            table.add_row(finding.check, finding.arm, finding.value, mark)
            findings.append(finding)
    Console(width=140).print(table)
    content = {"device": name, "torch": torch.__version__, "findings": [asdict(finding) for finding in findings]}
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
