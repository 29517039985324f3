"""Which checkpoint of a run is the best, judged only on records of the datasets that it is trained on.

As in T0 (Sanh et al. 2021, section 5): validation records of the training datasets, never held-out data, so that the
evaluation after it is zero-shot. The paper does not say how the scores of tasks are averaged; the rule here is stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from t0train.config import RunConfig, SuiteConfig
from t0train.core.errors import UserError
from t0train.core.files import write_json
from t0train.core.run_folder import RunFolder
from t0train.evals.eval_config import EvalConfig
from t0train.evals.evaluation import evaluate_into, hold_results, refuse_other_results
from t0train.evals.models import ModelReference
from t0train.mixture import build_mixture, leaks_of_run
from t0train.results import EvalResults, Selection
from t0train.results.results_folder import read_results
from t0train.results.results_json import Candidate

RULE = "the highest mean over datasets of the median over prompts; of equal ones the earliest"
"""Medians are of the accuracy, or of the first metric where a dataset is generated."""


def select_checkpoint(model: ModelReference, config: EvalConfig) -> Selection:
    """Evaluate every checkpoint that a run has, and make the best one the run's selected checkpoint.

    Results go to `RUN/eval/SUITE/step-XXXXXXXX/`, those of the best one also to `RUN/eval/SUITE/`, the comparison to
    `RUN/eval/SUITE/selection.json`. The best one is what loading the run gives, until the run is trained on.

    Args:
        model: the run folder.
        config: what is evaluated; see `training_part` for the datasets of its suite that count.

    Raises:
        UserError: no run folder, no checkpoint, a suite without any dataset that the run is trained on, or scored
            records that are trained on.
    """
    folder = RunFolder.require(Path(model.source).expanduser())
    assert model.run is not None
    suite, left_out = training_part(config.suite, model.run)
    config = replace(config, suite=suite)
    checkpoints = folder.list_complete()
    if not checkpoints:
        raise UserError(f"{folder} has no complete checkpoint yet; train until the first one is written.")
    out = model.results_folder(suite.name)
    with hold_results(out):
        refuse_other_results(out, model, config)
        candidates = []
        for path in checkpoints:
            results = evaluate_into(out / path.name, replace(model, source=str(path)), config)
            candidates.append(candidate(results))
            if max(candidates, key=_sort_key) is candidates[-1]:
                best = results
        there = read_results(out)
        if there is None or not there.is_fuller(best.datasets, best.limit):  # of other parts of the suite
            best.write(out)
        selection = Selection(
            suite=suite.name,
            step=max(candidates, key=_sort_key).step,
            source=best.source,
            limit=best.limit,
            seed=best.seed,
            candidates=tuple(candidates),
            rule=RULE,
            left_out=left_out | {f"{missing.dataset} {missing.split}": missing.reason for missing in best.missing},
            absent=absent_steps(model.run, [one.step for one in candidates]),
        )
        write_json(out / "selection.json", selection.as_json())
        folder.select(selection.step, suite.name)
    return selection


def training_part(suite: SuiteConfig, run: RunConfig) -> tuple[SuiteConfig, dict[str, str]]:
    """The datasets of a suite that a run is trained on, and the others with the reason why they must not count.

    Raises:
        UserError: there is none of the first kind, or its scored records are trained on.
    """
    leaks = leaks_of_run(build_mixture(run.mixture, run.data), suite, run)
    kinds: dict[str, str | None] = dict.fromkeys(task.dataset for task in suite.tasks)
    kinds |= {leak.dataset: leak.kind for leak in leaks}
    if wrong := sorted({leak.dataset for leak in leaks if leak.kind == "records"}):  # of any of a dataset's entries
        raise UserError(
            f"suite {suite.name} scores records that the run trains on ({', '.join(wrong)}): they say nothing about "
            "the choice of a checkpoint; name other records in the suite."
        )
    others = {key: "the run is not trained on it: held-out data must not choose" for key in kinds if not kinds[key]}
    others |= {key: "only its family is trained on" for key, kind in kinds.items() if kind == "family"}
    tasks = [task for task in suite.tasks if kinds[task.dataset] == "dataset"]
    if not tasks:
        raise UserError(
            f"no dataset of suite {suite.name} is trained on by the run, and held-out data must not choose a "
            "checkpoint: a zero-shot evaluation after it would not be one. Take a suite of other records of training "
            "datasets, e.g. t0_selection."
        )
    return suite.model_copy(update={"tasks": tasks, "differences": [], "probes": []}), others


def absent_steps(run: RunConfig, compared: Sequence[int]) -> tuple[int, ...]:
    """Steps up to the last one compared whose checkpoints should have stayed (`train.select`, `keep_every`)."""
    every = run.train.stays_every
    return tuple(sorted({*range(every, max(compared), every)} - set(compared))) if every else ()


def _sort_key(one: Candidate) -> tuple[float, int]:
    return one.score, -one.step


def candidate(results: EvalResults) -> Candidate:
    """The score of a checkpoint by `RULE`."""
    entries = [("ranked", task) for task in results.tasks] + [("generated", task) for task in results.generated]
    datasets = [task.dataset for _, task in entries]
    medians = {
        task.dataset if datasets.count(task.dataset) == 1 else f"{task.dataset} {task.split}, {kind}": task.median
        for kind, task in entries
    }
    assert results.model.step is not None
    return Candidate(step=results.model.step, score=float(np.mean(list(medians.values()))), medians=medians)
