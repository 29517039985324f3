"""Where a model's weights come from: a folder in Hugging Face's layout, the hub, or a run's checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from t0train.checkpoint import MANIFEST, list_checkpoints, step_of
from t0train.core.errors import UserError, nearest
from t0train.core.files import refuse_linked_folders, write_json

_CONFIG = "config.json"
_SELECTED = "selected.json"
_TOKENIZER = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")  # to be compared


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file.

    Attributes:
        source: folder that was read.
        loaded: names of the model's tensors, all of which were found.
        copies: tensors that repeat the shared embedding, checked to be equal to it.
        ignored: tensors that no T5 reads.
        tied: whether the embedding serves as head (T5 1.0).
        unread: files with weights that were passed over, as transformers does.
        stored_as: floating-point types of the file.
    """

    source: Path
    loaded: tuple[str, ...]
    copies: tuple[str, ...]
    ignored: tuple[str, ...]
    tied: bool
    unread: tuple[str, ...] = ()
    stored_as: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = "tied to the embedding, scaled by d_model ** -0.5" if self.tied else "untied, unscaled"
        parts = [f"{len(self.loaded)} tensors from {self.source}", f"head {head}", "none missing"]
        if self.copies:
            parts.append(f"{len(self.copies)} copies of the embedding")
        if self.ignored:
            parts.append(f"ignored: {', '.join(self.ignored)}")
        if "float16" in self.stored_as:
            parts.append("stored as float16, which keeps 3 digits and nothing below 3e-8")
        if self.unread:
            parts.append(f"not read: {_listed(self.unread)}")
        return "; ".join(parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def find_weights(source: str | Path, step: int | None = None) -> Path:
    """The folder of a model: a checkpoint (`model.json`, `state/`) or one in Hugging Face's layout (`config.json`).

    Args:
        source: such a folder, a run folder, or a hub id such as `google/t5-xl-lm-adapt`.
        step: checkpoint of a run folder; if not given, the selected one, else the newest complete one.

    Raises:
        UserError: nothing there, or nothing complete; the hub cannot be reached or does not know the id.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        name = str(source)
        run, at, number = name.rpartition("@")
        if at and (Path(run).expanduser() / "checkpoints").is_dir():
            step_folder = (
                f"{run}/checkpoints/step-{number.zfill(8)}" if number.isdecimal() else f"{run}/checkpoints/..."
            )
            raise UserError(f"there is no model folder {source}; a checkpoint of a run is named {step_folder}.")
        if name.count("/") == 1 and not name.startswith((".", "~", "/")):
            return _from_hub(name)
        raise UserError(
            f"there is no model folder {source}; give a folder, a run folder, or a hub id (owner/name)."
            + _siblings(folder)
        )
    if (folder / "checkpoints").is_dir():
        return find_checkpoint(folder, step)
    if step is not None:
        raise UserError(f"{folder} is no run folder (no checkpoints/ in it): --step {step} means nothing there.")
    if (folder / "adapter_config.json").is_file() and not (folder / _CONFIG).is_file():
        raise UserError(
            f"{folder} holds an adapter (PEFT), no whole model; merge it into its base model and save that."
        )
    if not folder.is_dir() or not any((folder / name).is_file() for name in ("model.json", _CONFIG)):
        raise UserError(
            f"{folder} holds no model: expected config.json with safetensors (Hugging Face), a checkpoint's "
            "model.json, or a run folder with checkpoints/."
        )
    return folder


def _siblings(missing: Path) -> str:
    """What there is instead of a folder that is missing, if its parent is there."""
    if not missing.parent.is_dir():
        return ""
    there = [path.name for path in missing.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return f" In {missing.parent}: {nearest(missing.name, there)}" if there else ""


def find_checkpoint(run: Path, step: int | None = None) -> Path:
    """The run's checkpoint of `step`, or the selected one, or the newest complete one."""
    complete = complete_checkpoints(run)
    if not complete:
        raise UserError(f"{run} has no complete checkpoint yet; train until the first one is written.")
    if step is None:
        step = selected_step(run)
    if step is None:
        return complete[-1]
    wanted = run / "checkpoints" / f"step-{step:08d}"
    if wanted not in complete:
        steps = ", ".join(map(str, _steps(complete)))
        raise UserError(f"{run} has no complete checkpoint of step {step}; it has {steps}.")
    return wanted


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, the earliest first (of each the manifest is written last)."""
    there = list_checkpoints(run / "checkpoints")
    return [folder for folder in reversed(there) if (folder / MANIFEST).is_file()]


def select_step(run: Path, step: int, suite: str) -> None:
    """Make a step the run's checkpoint: it is loaded where no step is named, as long as the run is not trained on."""
    compared = _steps(complete_checkpoints(run))
    refuse_linked_folders(run, run / "checkpoints")
    write_json(run / "checkpoints" / _SELECTED, {"step": step, "suite": suite, "compared": compared})


def selected_step(run: Path) -> int | None:
    """The step that was selected; None if none was, or if the newest checkpoint was not among those compared."""
    try:
        selection = json.loads((run / "checkpoints" / _SELECTED).read_text(encoding="utf-8"))
        step, compared = int(selection["step"]), set(selection["compared"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    there = _steps(complete_checkpoints(run))
    return step if there and there[-1] in compared and step in there else None


def _steps(checkpoints: list[Path]) -> list[int]:
    return [step for folder in checkpoints if (step := step_of(folder)) is not None]


def _from_hub(name: str) -> Path:
    """Download (or find in the cache) config, tokenizer and weights, safetensors if the repository has them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        for weights in ("*.safetensors", "*.bin"):
            wanted = [_CONFIG, weights, f"{weights}.index.json", *_TOKENIZER]
            folder = Path(snapshot_download(name, allow_patterns=wanted))
            if any(folder.glob(weights)):
                return folder
    except GatedRepoError as error:
        raise UserError(f"the hub asks for a login to read {name}; run `hf auth login`, then try again.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"there is no folder {name}, and no public model {name} on the hub; check the name.{_siblings(Path(name))}"
        ) from error
    except Exception as error:  # offline mode, no network, proxies: each raises something of its own
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UserError(
            f"there is no folder {name}, and it cannot be had from the Hugging Face hub ({reason}). Check the name and "
            f"the connection, or download the model elsewhere and give its folder.{_siblings(Path(name))}"
        ) from error
    raise UserError(f"the hub's {name} has neither safetensors nor .bin weights for PyTorch.")
