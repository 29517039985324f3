"""`t0train generate`: let a model answer prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint of a run, an exported folder, or a hub id.")],
    prompt: Annotated[str | None, typer.Argument(help="What the model reads; default: every line of stdin.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", help='JSONL file of objects with an "input"; they are printed with an "output" added.'),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    beams: Annotated[int, typer.Option(min=1, max=64, help="Beams; 1 is greedy decoding.")] = 1,
    device_map: Annotated[
        str | None, typer.Option(help="Placement over devices by accelerate; auto spreads a large model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for every prompt.")] = False,
) -> None:
    """Print a model's answers. Inputs get no EOS, as in training.

    Example: t0train generate runs/toy/run "The film was lovely . Is this review good or bad ?"
    """
    from t0train.core.console import progress, say
    from t0train.core.errors import UserError

    if prompt is not None and source is not None:
        raise UserError("both a prompt and --input were given; give one of them.")
    rows = [{"input": prompt}] if prompt is not None else _read_jsonl(source) if source else _read_stdin()
    if not rows:
        raise UserError(f"{source or 'stdin'} holds no prompt.")

    from t0train.evals import Generator

    generator = Generator.open(model, device_map)
    texts = [row["input"] for row in rows]
    with progress("generate", len(texts), "prompts") as advance:
        answers = generator.generate(texts, max_new_tokens, beams, advance=advance, say=say)
    for row, answer in zip(rows, answers, strict=True):
        print(json.dumps({**row, "output": answer}, ensure_ascii=False) if source or as_json else answer)


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    from t0train.core.errors import UserError
    from t0train.core.text import read_json_lines

    rows = []
    for number, _, row in read_json_lines(path):
        if row is None:
            continue
        if not isinstance(row.get("input"), str):
            found = json.dumps(row, ensure_ascii=False)[:80]
            raise UserError(f'{path}, line {number}: an object with a text "input" is expected, found {found}')
        rows.append(row)
    return rows


def _read_stdin() -> list[dict[str, Any]]:
    from t0train.core.errors import UserError
    from t0train.core.text import decode

    if sys.stdin.isatty():
        raise UserError("no prompt: give one as argument, a JSONL file with --input, or lines on stdin.")
    text = decode(sys.stdin.buffer.read(), "stdin")
    return [{"input": line.strip()} for line in text.split("\n") if line.strip()]
