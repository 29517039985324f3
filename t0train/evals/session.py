"""One evaluation from names to files: which model, which suite, where rows are, which folder the results go to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t0train.config import SuiteConfig, load_suite, run_identity
from t0train.core.console import say
from t0train.core.errors import UserError
from t0train.core.files import refuse_linked_folders, remove_leftovers
from t0train.core.lock import hold_folder
from t0train.core.run_folder import RunFolder, similar_folders, step_of
from t0train.evals.evaluation import evaluate_model
from t0train.evals.models import model_name, open_model, refuse_no_model
from t0train.evals.parallel import Work, answer_in_processes
from t0train.evals.prediction_cache import fingerprint
from t0train.mixture import build_mixture, describe_leaks, leaks_of_run
from t0train.model import run_config_of
from t0train.results import EvaluatedModel
from t0train.results.results_folder import RESULTS, Results, check_folder
from t0train.results.results_json import NotHeldOut
from t0train.tasks import load_catalogue

ANSWERS = "answers"


@dataclass(frozen=True)
class Request:
    """What is asked of `t0train eval`.

    Attributes:
        model: a run folder, a checkpoint of a run, an exported folder, or a hub id.
        suite: a name in configs/evals/ or a YAML file; empty for the suite of the model's run.
        data: folder with rows, or `hub`; empty for the source of the suite or the run.
        store: folder of the token store; empty for the run's.
        limit: score at most this many rows of each dataset.
        untrained: the run's model as it was before step 1.
        processes: how many share the work.
    """

    model: str
    suite: str = ""
    data: str = ""
    store: str = ""
    limit: int | None = None
    untrained: bool = False
    processes: int = 1

    def load_suite(self) -> SuiteConfig:
        """The suite that is meant. Raises `UserError` if none is, or if there is no model to score on it."""
        refuse_no_model(self.model)
        run = run_config_of(self.model)
        suite = self.suite or (run.suite if run else "")
        if not suite:
            missing = "no suite: the model's run names none"
            if not (folder := Path(self.model).expanduser()).exists():
                hint = similar_folders(folder)
                missing = f"there is no folder {self.model}{hint and f' ({hint})'}"
                missing += "; if it is a model of the hub, no suite was chosen for it"
            raise UserError(f"{missing}; choose one with --suite NAME (configs/evals/) or a path.")
        return load_suite(suite)

    def options(self, suite: SuiteConfig) -> dict[str, Any]:
        """The suite and where its rows are, as arguments for `evaluate_model`."""
        run = run_config_of(self.model)
        catalogue = suite.catalogue or (run.data.catalogue if run else "")
        templates = suite.templates or (run.data.templates if run else [])
        return {
            "suite": suite,
            "source": self.data or suite.data or (run.data.source if run else "hub"),
            "store": self.store or (run.data.store if run else ""),
            "catalogue": load_catalogue(Path(catalogue) if catalogue else None),
            "templates": [Path(folder) for folder in templates],
            "limit": self.limit,
        }  # and its own seed, not the run's: runs are compared on the same rows

    def default_folder(self, suite: SuiteConfig) -> Path:
        """`RUN/eval/SUITE`, else `eval/MODEL/SUITE` where the command is run.

        Checkpoints that are not what the run folder itself gives (its selected checkpoint, else its newest) have a
        folder of their own within it, `RUN/eval/SUITE/step-XXXXXXXX`.

        Raises:
            UserError: symbolic links in `RUN/eval/SUITE` would have results written somewhere else.
        """
        folder = RunFolder.of(self.model)
        if folder is None:
            return Path("eval", model_name(self.model).strip("/").replace("/", "--"), suite.name)
        inside = folder.results(suite.name, self.untrained)
        source = Path(self.model).expanduser()
        if not self.untrained and step_of(source) is not None and folder.find_checkpoint().name != source.name:
            inside /= source.name
        refuse_linked_folders(folder.path, inside)
        return inside


def evaluate(
    model: str | Path,
    suite: str | Path = "",
    *,
    data: str | Path = "",
    store: str | Path = "",
    limit: int | None = None,
    untrained: bool = False,
    processes: int = 1,
    out: str | Path | None = None,
) -> Results:
    """Score a model on a suite as `t0train eval` does, and write the results: for notebooks and scripts.

    Args:
        model: a run folder, a checkpoint of a run, an exported folder, or a hub id.
        suite: a name in configs/evals/ or a YAML file; empty for the suite of the model's run.
        data: folder with rows, or `hub`; empty for the source of the suite or the run.
        store: folder of the token store; empty for the run's.
        limit: score at most this many rows of each dataset.
        untrained: score the run's model as it was before step 1.
        processes: how many share the work, each with its own copy of the model.
        out: folder for the results; default: `RUN/eval/SUITE` (see `Request.default_folder`).

    Raises:
        UserError: bad input; the folder holds results of another model or suite, or cannot be written to.
    """
    request = Request(str(model), str(suite), str(data), str(store), limit, untrained, processes)
    chosen = request.load_suite()
    return evaluate_into(Path(out) if out else request.default_folder(chosen), request, chosen)


def evaluate_into(folder: Path, request: Request, suite: SuiteConfig, answers: Path | None = None) -> Results:
    """Evaluate, and write results into a folder. What the folder of answers holds already is not asked for again.

    Args:
        folder: for the results.
        request: model, rows and so on.
        suite: what is scored.
        answers: folder of the answers, of this model or others; default: `answers` in `folder`.

    Raises:
        UserError: bad input; the folder holds results of another model or suite, or cannot be written to.
    """
    options = request.options(suite)
    answers = answers or (folder if step_of(folder) is None else folder.parent) / ANSWERS
    with hold_results(folder):
        refuse_other_results(folder, suite, request)
        if request.processes > 1:
            answer_in_processes(Work(request.model, request.untrained, options, answers, request.processes))
        subject = open_model(request.model, request.untrained)
        results = evaluate_model(subject.model, subject.vocabulary, **options, facts=subject.facts, answers=answers)
        results = results.model_copy(update={"not_held_out": _not_held_out(request, suite)})
        results.write(folder)
    return results


@contextmanager
def hold_results(folder: Path) -> Iterator[None]:
    """Hold a folder of results: wait while another process evaluates into it, and remove what killed ones left.

    Raises:
        UserError: the folder cannot be written to.
        PreemptedError: a signal asked this process to stop while it waited.
    """
    with hold_folder(folder, f"evaluating into {folder}", say):
        remove_leftovers(folder, exclusive=True)
        for inner in folder.rglob("*/"):
            remove_leftovers(inner)
        yield


def refuse_other_results(folder: Path, suite: SuiteConfig, request: Request) -> None:
    """Refuse a folder with results of another model or suite, or of more rows; see `check_folder`."""
    run = run_config_of(request.model)
    weights = ""
    if run is None and (folder / RESULTS).is_file():  # only weights, which take time, tell exported ones apart
        weights = fingerprint(open_model(request.model, request.untrained).model)
    model = EvaluatedModel(
        name=model_name(request.model),
        run=run_identity(run) if run else None,
        weights=weights,
        untrained=request.untrained,
    )
    check_folder(folder, suite.name, model, request.limit)


def _not_held_out(request: Request, suite: SuiteConfig) -> dict[str, NotHeldOut] | None:
    """What the model's run has trained on of what the suite judges; None if that cannot be told any more."""
    run = run_config_of(request.model)
    if run is None:
        return None
    if request.untrained:
        return {}
    scored = suite.model_copy(update={"data": request.data or suite.data})
    try:
        return describe_leaks(leaks_of_run(build_mixture(run.mixture, run.data), scored, run))
    except UserError:  # its mixture's rows, templates or catalogue are gone
        return None
