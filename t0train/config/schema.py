"""The schema of a run. Its defaults are the T0 recipe (Sanh et al. 2021); every key is read by some part of t0train."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from t0train.config.architecture import SIZES
from t0train.config.paths import ConfigPath
from t0train.core.errors import nearest

MOST = 10**9
"""Of steps, and of whatever else has no smaller limit: far more than any run has, so a slip of the keyboard."""
MOST_ROWS = 10**6
MOST_TOKENS = 2**16
MOST_PROMPTS = 10**4
LARGEST_SEED = 2**63 - 1
_LONGEST_NAME = 100  # a folder's name has up to 255 bytes, with what is put before and behind it


def check_name(text: str) -> str:
    """The text, which becomes (a part of) the name of a folder or file.

    Raises:
        ValueError: characters that not every file system and shell takes as they are, or too many of them.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > _LONGEST_NAME:
        raise ValueError(
            "It names a folder: expected a letter or digit (without accent), then letters, digits, dots, hyphens and "
            f"underscores, {_LONGEST_NAME} characters at most"
        )
    return text


def _check_size(text: str) -> str:
    if text and text not in SIZES:
        raise ValueError(f"There is no such size; {nearest(text[:_LONGEST_NAME], SIZES)}")
    return text


Name = Annotated[str, AfterValidator(check_name)]
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]


_LAUNCH = "t-zero, training/README.md (launch command)"
_TASKS = "t-zero, t0/seqio_tasks/tasks.py"
_DATASETS = "t-zero, t0/datasets.csv"
_CARD = "T0's model card"
_OPTIMIZE = "Mesh TensorFlow, optimize.py"
_TRANSFORMER = "Mesh TensorFlow, transformer/transformer.py"
_LR_FILE = "T5, learning_rate_schedules/constant_0_001.gin"
_OWN = "no such choice in T0"
"""Where T0's values come from. t-zero, T5 and Mesh TensorFlow are the repositories of the original."""


def recipe_field(default: Any, description: str, source: str, **constraints: Any) -> Any:
    """A key that matters to what is learned. Its default is T0's value; another value is a deviation from T0.

    Args:
        default: T0's value.
        description: what the key means, one line.
        source: where it is written that T0 had this value.
        constraints: pydantic's, e.g. `ge`.
    """
    return Field(default, description=description, json_schema_extra={"source": source}, **constraints)


def execution_field(default: Any, description: str, **constraints: Any) -> Any:
    """A key that changes where or how a run executes, but not what is learned: it is no deviation from T0."""
    return Field(default, description=description, json_schema_extra={"recipe": False}, **constraints)


class Section(BaseModel):
    """Strict: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class MixtureOverrides(Section):
    """What a mixture file, or a run, changes in the mixture that it starts from."""

    include: list[str] = recipe_field(
        [], "keep only tasks that match one of these patterns (dataset, family, task)", _TASKS
    )
    exclude: list[str] = recipe_field([], "drop tasks that match one of these patterns (dataset, family, task)", _TASKS)
    prompts: Literal["default", "all", "original", "one"] | Annotated[int, Field(ge=1, le=MOST_PROMPTS)] = recipe_field(
        "default",
        "templates used of each dataset: default (what the mixture says), all, original (those for the original "
        "task), one (the first of those), or a number k (k of them, drawn with prompts_seed)",
        _TASKS,
    )
    rate: Literal["default", "t0_cap", "proportional", "equal", "temperature"] = recipe_field(
        "default", "rate function; default: what the mixture names, and t0_cap if it names none", _TASKS
    )
    cap: int | None = recipe_field(
        None,
        "examples above which a dataset's rate is capped (t0_cap, temperature); empty: 500,000",
        _TASKS,
        ge=1,
        le=10**12,
    )
    temperature: float | None = recipe_field(
        None, "rates are raised to 1/temperature (rate: temperature); empty: 1", _TASKS, ge=0.1, le=1e6
    )
    scale: dict[str, Factor] = recipe_field({}, "factors on the rates of the tasks that match a pattern", _TASKS)


class MixtureConfig(MixtureOverrides):
    """Which tasks are trained on, and how often each is drawn."""

    name: Annotated[str, ConfigPath(other="name")] = recipe_field(
        "t0",
        "t0, t0p, t0pp, t0_3b, t0_single_prompt or t0_original_task_only; `catalogue` takes every "
        "dataset of data.catalogue that is not held out; or the path of a mixture file (configs/mixtures/)",
        f"{_LAUNCH}; {_DATASETS}: BASE",
    )
    prompts_seed: int = recipe_field(
        0,
        "seed for drawing the templates where prompts is a number; independent of the run's seed",
        _OWN,
        ge=0,
        le=LARGEST_SEED,
    )
    rates_from: Literal["catalogue", "records"] = recipe_field(
        "catalogue", "sizes that set the rates: the catalogue's train_size, or the numbers of records found", _DATASETS
    )


class DataConfig(Section):
    """Where records come from and how they become packed rows."""

    source: Annotated[str, ConfigPath(words=("hub",))] = execution_field(
        "hub", "`hub`, or a folder with <dataset>/<config or default>/<split>.parquet|jsonl|csv"
    )
    store: Annotated[str, ConfigPath()] = execution_field("", "folder of the token store; empty: <cache>/store")
    vocabulary: Annotated[str, ConfigPath(words=("t5",), other="hub id")] = recipe_field(
        "t5",
        "`t5` (T5's own, from the hub), the path of a sentencepiece model, or the hub id of one",
        "T5, data/utils.py: cc_all.32000 and 100 extra ids",
    )
    catalogue: Annotated[str, ConfigPath()] = recipe_field(
        "", "CSV file with further datasets, in the columns of t0train's own catalogue", _DATASETS
    )
    templates: list[Annotated[str, ConfigPath()]] = recipe_field(
        [], "folders with further templates, searched before promptsource's", f"{_TASKS}: promptsource's"
    )
    splits: dict[str, str] = recipe_field(
        {}, "training split of a dataset where it is not the catalogue's, e.g. {ag_news: 'test[1000:]'}", _TASKS
    )
    missing: Literal["error", "drop"] = recipe_field(
        "error", "what to do when a dataset of the mixture is not found", _OWN
    )
    allow_empty_targets: bool = execution_field(
        False, "accept tasks whose targets all teach nothing (<NO LABEL>, blank, a null, ...)"
    )
    max_inputs: int = recipe_field(1024, "input positions of a row, in tokens", _LAUNCH, ge=1, le=MOST_TOKENS)
    max_targets: int = recipe_field(256, "target positions of a row, in tokens", _LAUNCH, ge=1, le=MOST_TOKENS)
    packing: Literal["next_fit", "best_fit", "none"] = recipe_field(
        "next_fit",
        "how examples are placed on rows; next_fit is the original's rule",
        "Mesh TensorFlow, transformer/dataset.py",
    )
    workers: int = execution_field(
        2, "threads that build batches ahead of training; 0 builds them in the loop", ge=0, le=256
    )


class ModelConfig(Section):
    """The model that training starts from."""

    init_from: Annotated[str, ConfigPath(words=("random",), other="hub id")] = recipe_field(
        "google/t5-xxl-lm-adapt", "hub id or folder of the weights, or `random`", _LAUNCH
    )
    size: Annotated[str, AfterValidator(_check_size)] = recipe_field(
        "", "tiny, mini, small, base, large, xl or xxl; needed when init_from is `random`", _LAUNCH
    )
    vocabulary_size: int = recipe_field(
        32_128,
        "rows of the embedding and of the head (init_from: random)",
        "Mesh TensorFlow: 32,100 ids, rounded up to a multiple of 128",
        ge=2,
        le=2**16,
    )  # the token store's ids have 16 bits
    dropout: float = recipe_field(0.1, "dropout rate, in the five places of the original", _CARD, ge=0, lt=1)
    dropout_style: Literal["mesh", "elementwise"] = recipe_field(
        "mesh",
        "mesh: dropout masks shared along the length axis (the original); elementwise: independent ones",
        "Mesh TensorFlow, transformer/transformer_layers.py",
    )
    attention: Literal["auto", "eager", "segment", "sdpa", "flex"] = execution_field(
        "auto", "attention backend; auto: segment on a CPU, sdpa on a GPU"
    )

    @model_validator(mode="after")
    def _size_goes_with_random_weights(self) -> ModelConfig:
        if (self.init_from == "random") != bool(self.size):
            raise ValueError("model.size goes with model.init_from: random, and only with it (weights know their size)")
        return self


class OptimizerConfig(Section):
    """Adafactor after Mesh TensorFlow by default. Keys left empty take the preset's value."""

    name: Literal["adafactor", "adamw"] = recipe_field("adafactor", "Adafactor or AdamW", _CARD)
    preset: Literal["t5", "hf"] = recipe_field(
        "t5", "adafactor: constants of Mesh TensorFlow or of transformers", _OPTIMIZE
    )
    lr: float = recipe_field(1e-3, "peak learning rate; adamw: at most 1", f"{_CARD}; {_LR_FILE}", ge=1e-12, le=1e38)
    schedule: Literal["constant", "linear", "inverse_sqrt"] = recipe_field(
        "constant", "how the learning rate changes over the steps, after the warm-up", _LR_FILE
    )
    warmup: int = recipe_field(0, "steps of linear warm-up", _LR_FILE, ge=0, le=MOST)
    final_fraction: float = recipe_field(0.0, "linear: the rate falls to this fraction of lr", _LR_FILE, ge=0, le=1)
    step_offset: int = recipe_field(
        0, "adafactor: steps that its decay schedule counts before the first one", _OPTIMIZE, ge=0, le=MOST
    )
    min_dim_size_to_factor: int | None = recipe_field(
        None, "adafactor: smallest dimension that is factored", _OPTIMIZE, ge=1, le=MOST
    )
    clip_threshold: float = recipe_field(1.0, "adafactor: largest RMS of an update", _OPTIMIZE, ge=1e-9, le=1e9)
    betas: tuple[Decay, Decay] = recipe_field((0.9, 0.999), "adamw: decay of the moments", _OWN)
    weight_decay: float = recipe_field(0.0, "adamw: decoupled weight decay", _OPTIMIZE, ge=0, le=100)
    max_grad_norm: float | None = recipe_field(
        None, "clip the gradient's global norm; T0 did not", _OPTIMIZE, ge=1e-9, le=1e9
    )

    @model_validator(mode="after")
    def _adamw_moves_parameters_by_its_rate(self) -> OptimizerConfig:
        if self.name == "adamw" and self.lr > 1:
            raise ValueError(
                f"optimizer.lr is {self.lr:g}, and adamw changes every parameter by about as much in each step; give 1 "
                "at most (usual: 1e-5 to 1e-3)"
            )
        return self


class BatchConfig(Section):
    """How much one step sees: a number of packed rows (the original), or a number of examples."""

    rows: int | None = recipe_field(1024, "packed rows per step", f"{_CARD}; {_LAUNCH}", ge=1, le=MOST_ROWS)
    examples: int | None = recipe_field(None, "examples per step, instead of rows", _LAUNCH, ge=1, le=MOST_ROWS)
    micro_batch_rows: int = execution_field(16, "rows that go through the model at once", ge=1, le=MOST_ROWS)

    @model_validator(mode="before")
    @classmethod
    def _examples_instead_of_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("examples") is not None:
            if values.get("rows") is not None:
                raise ValueError("give either rows or examples, and null for the other")
            return {**values, "rows": None}
        return values

    @model_validator(mode="after")
    def _one_of_the_two(self) -> BatchConfig:
        if self.rows is None and self.examples is None:
            raise ValueError("give either rows or examples")
        return self


class LossConfig(Section):
    """Summed token cross-entropy plus z-loss, over a denominator."""

    denominator: Literal["padded", "tokens", "examples"] = recipe_field(
        "padded", "padded: rows x max_targets, padding included (the original)", _TRANSFORMER
    )
    z_loss: float = recipe_field(1e-4, "weight of the squared log-partition", _TRANSFORMER, ge=0, le=100)
    chunk: int = execution_field(
        1024,
        "target positions in one chunk of the loss; the logits of one chunk at a time are in memory",
        ge=1,
        le=MOST,
    )


class CheckpointConfig(Section):
    """When checkpoints are written, and which stay. The one of the last step counts as a regular one."""

    every: int = execution_field(500, "steps between regular checkpoints", ge=1, le=MOST)
    keep: int = execution_field(2, "regular checkpoints kept, the newest first", ge=1, le=MOST)
    keep_every: int | None = execution_field(
        None,
        "steps between checkpoints that are never removed, in addition to the newest `keep`; empty: none, or with "
        "train.select all regular ones, as it compares them",
        ge=1,
        le=MOST,
    )
    minutes: float | None = execution_field(
        None,
        "write a temporary checkpoint when this many minutes have passed since the last checkpoint; it is removed "
        "when the next one is written, as is one written on SIGTERM; empty: regular ones only",
        gt=0,
        le=525_600,  # a year
    )
    asynchronous: bool = execution_field(
        False, "copy the state to host memory and continue training while it is written"
    )


class DeepSpeedConfig(Section):
    """Settings of DeepSpeed, for train.strategy: deepspeed."""

    stage: Literal[1, 2, 3] = execution_field(
        3, "ZeRO stage: 1 shards the optimizer state, 2 gradients as well, 3 parameters as well"
    )
    config: dict[str, Any] = execution_field(
        {},
        "further DeepSpeed keys, merged over the generated ones; keys that the run configuration covers itself "
        "are refused",
    )


class TrainConfig(Section):
    """Training: steps, batch, loss, precision, checkpoints, processes."""

    steps: int = recipe_field(12_200, "optimizer steps", f"{_CARD}; {_LAUNCH}", ge=1, le=MOST)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    precision: Literal["bf16", "fp32"] = recipe_field("bf16", "compute precision over fp32 parameters", _CARD)
    device: Literal["auto", "cpu", "cuda"] = execution_field("auto", "auto: the GPU if there is one")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    select: Annotated[str, ConfigPath(other="name")] = execution_field(
        "",
        "suite on training datasets, e.g. t0_selection, that selects the best checkpoint at the end, among all "
        "regular ones (kept for this) or those of checkpoint.keep_every and checkpoint.keep; empty: the newest "
        "checkpoint is the run's",
    )
    strategy: Literal["auto", "single", "ddp", "fsdp", "hsdp", "deepspeed"] = execution_field(
        "auto", "how processes share the model; auto: fsdp for several, single for one"
    )
    replicas: int | None = execution_field(
        None,
        "hsdp: replicas of the model, each sharded over its own processes; empty: one per machine",
        ge=1,
        le=10**5,
    )
    deepspeed: DeepSpeedConfig = Field(default_factory=DeepSpeedConfig)
    timeout_s: float = execution_field(
        1800.0, "seconds that a process waits for the others before it gives up", gt=0, le=1e6
    )
    activation_checkpointing: Literal["none", "block", "selective"] = execution_field(
        "none",
        "none; block: recompute whole blocks in the backward pass; selective: recompute all but matrix products "
        "with weights",
    )
    compile: bool = execution_field(False, "torch.compile each block; needs attention sdpa, flex or eager")
    probe_memory: bool = execution_field(
        False, "run the largest possible rows before the first step, so that a lack of memory shows at once"
    )
    canary: bool = execution_field(
        True, "packing self-check: before the first step, compare a packed row with its examples run alone"
    )

    @property
    def stays_every(self) -> int | None:
        """Steps between checkpoints that are never removed; None if all but the newest few are."""
        return self.checkpoint.keep_every or (self.checkpoint.every if self.select else None)

    def is_regular(self, step: int) -> bool:
        """Whether a regular checkpoint is due after a step."""
        regular = (self.checkpoint.every, self.checkpoint.keep_every)
        return step == self.steps or any(step % every == 0 for every in regular if every)


class LeaksConfig(Section):
    """Contamination: what the run's suite is judged on must not be trained on."""

    held_out: Literal["families", "datasets", "records"] = execution_field(
        "families",
        "what of the suite may not be in the training mixture, else the run is refused: its families of tasks "
        "(zero-shot), its datasets, or only the scored records",
    )
    ngram: int = execution_field(13, "words of the n-grams that `mixture check --ngrams` compares", ge=1, le=1000)
    threshold: float = execution_field(
        0.2, "a scored record overlaps if at least this share of its n-grams occurs in training records", gt=0, le=1
    )


class RunConfig(Section):
    """A whole run: `t0train train CONFIG` and all that follows it."""

    name: Name = execution_field("t0", "name of the run")
    output: Annotated[str, ConfigPath()] = execution_field(
        "", "run folder; empty: runs/<name>, and runs/<name>-seed<seed> for other seeds than 0"
    )
    seed: int = execution_field(0, "seed of the order, the dropout masks and random weights", ge=0, le=LARGEST_SEED)
    suite: Annotated[str, ConfigPath(other="name")] = execution_field(
        "", "evaluation suite of the run: a name of configs/evals/ or a path"
    )
    leaks: LeaksConfig = Field(default_factory=LeaksConfig)
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
