"""`t0train estimate`: memory, time and cost of a run on named GPUs, before there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from t0train.cli.arguments import Config, Json, Overrides
from t0train.core.console import ConsoleTable, print_json

if TYPE_CHECKING:
    from t0train.estimate import Estimate

GIB, TFLOP = 2**30, 1e12

_KINDS = {
    "parameters": "parameters (fp32)",
    "gradients": "gradients (fp32)",
    "optimizer": "optimizer state",
    "working_weights": "weights in compute precision",
    "activations": "activations",
    "attention": "attention",
    "dropout_masks": "dropout masks",
    "head": "head and loss",
}
_PER_ROW = {"activations", "attention", "dropout_masks"}


def command(
    config: Config,
    overrides: Overrides = None,
    device: Annotated[str, typer.Option(help="h200, h100, a100-80, a100-40 or l40s")] = "h200",
    count: Annotated[int, typer.Option(help="number of GPUs")] = 1,
    mfu: Annotated[float, typer.Option(help="share of the device's peak that is reached")] = 0.5,
    strategy: Annotated[str | None, typer.Option(help="short for train.strategy=...")] = None,
    micro_batch_rows: Annotated[int | None, typer.Option(help="short for train.batch.micro_batch_rows=N")] = None,
    examples_per_row: Annotated[
        float | None, typer.Option(help="mean examples of a packed row, where a step is counted in examples")
    ] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="of one GPU, in any currency")] = None,
    as_json: Json = False,
) -> None:
    """Say what a run needs: bytes on each GPU by kind, host RAM, FLOP, hours; and what to change if it does not fit.

    Nothing is loaded or downloaded. The time is what the FLOP take at the given utilisation (MFU).

    Example: t0train estimate t0_3b --device h200 --count 8
    """
    from t0train.config import load_config
    from t0train.estimate import estimate

    shorts = {"train.strategy": strategy, "train.batch.micro_batch_rows": micro_batch_rows}
    changes = [*(overrides or ()), *(f"{key}={value}" for key, value in shorts.items() if value is not None)]
    result = estimate(
        load_config(config, changes),
        device,
        count,
        mfu=mfu,
        examples_per_row=examples_per_row,
        price_per_hour=price_per_hour,
    )
    if as_json:
        print_json(result.as_dict())
    else:
        _print(result)


def _print(result: Estimate) -> None:
    workload, model = result.workload, result.workload.model
    layers = f"{model.num_layers} + {model.num_layers} layers"
    print(
        f"{result.run} from {result.start}: {result.parameters:,} parameters "
        f"(d_model {model.d_model}, d_ff {model.d_ff}, {layers}, {model.num_heads} heads of {model.d_kv})\n"
        f"{workload.count} x {result.device.name}, {workload.strategy}, {workload.precision}, "
        f"attention {workload.attention}, activation checkpointing {workload.checkpointing}, "
        f"{workload.micro_batch_rows} rows of {workload.max_inputs} + {workload.max_targets} at once\n"
    )
    for rows in (_memory(result), _time(result)):
        table = ConsoleTable(["what", "how much", "remark"], ["how much"], is_plain=True, shows_header=False)
        for row in rows:
            table.add(*row)
        table.show()
        print()
    if result.advice:
        print("It does not fit. What would:")
        print("\n".join(f"  {line}" for line in result.advice))
    elif not result.fits:
        print("It does not fit, and no number of these GPUs would do; choose a smaller model or shorter rows.")


def _memory(result: Estimate) -> Iterator[tuple[str, str, str]]:
    micro_batch_rows, memory = result.workload.micro_batch_rows, asdict(result.memory)
    for kind, words in _KINDS.items():
        a_row = f"{memory[kind] / micro_batch_rows / GIB:.2f} a row" if kind in _PER_ROW else ""
        if memory[kind]:
            yield words, f"{memory[kind] / GIB:.2f} GiB", a_row
    room = f"of {result.device.memory_bytes / GIB:.1f}"
    most = f"; up to {result.largest_micro_batch} rows at once would" if result.fits else ""
    yield (
        "on each GPU",
        f"{result.memory.total / GIB:.2f} GiB",
        f"{room}: {'fits' if result.fits else 'too much'}{most}",
    )
    if result.start_bytes:
        yield "on each GPU, to start", f"{result.start_bytes / GIB:.2f} GiB", "DeepSpeed is given the whole model"
    yield (
        "RAM of each node",
        f"{result.host_bytes_per_node / GIB:.2f} GiB",
        "one fp32 copy of the weights, to load them",
    )


def _time(result: Estimate) -> Iterator[tuple[str, str, str]]:
    flop, peak = result.flop, result.device.peak_flop_per_s(result.workload.precision)
    shares = ", ".join(f"{name} {part / flop.forward:.1%}" for name, part in asdict(flop).items())
    yield "training on a row", f"{flop.train / TFLOP:.2f} TFLOP", shares
    if result.recomputed_flop:
        yield "  computed again", f"{result.recomputed_flop / TFLOP:.2f} TFLOP", "takes its part of the utilisation"
    yield (
        f"a step of {result.rows:,.0f} rows",
        f"{result.seconds_per_step:,.2f} s",
        f"at {result.utilisation:.0%} of {peak / TFLOP:,.0f} TFLOP/s on each GPU",
    )
    whole = f"{result.flop.train * result.rows * result.steps:.3g} FLOP"
    yield f"{result.steps:,} steps", f"{result.hours:,.1f} hours", whole
    if result.cost is not None:
        yield "cost", f"{result.cost:,.0f}", f"at {result.price_per_hour:g} for an hour of one GPU"
