"""t0train: train T0, that is T5 made to solve unseen tasks by multitask fine-tuning on natural-language prompts.

The names below are the public face for notebooks and scripts. Each is imported when it is first used, so that
`import t0train` itself loads neither torch nor anything else that is slow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t0train.config import load_config
    from t0train.evals import evaluate, open_model
    from t0train.mixture import build_mixture
    from t0train.report import write_report
    from t0train.training import train

__all__ = [
    "__version__",
    "build_mixture",
    "evaluate",
    "load_config",
    "open_model",
    "train",
    "write_report",
]

_HOMES = {
    "build_mixture": "t0train.mixture",
    "evaluate": "t0train.evals",
    "load_config": "t0train.config",
    "open_model": "t0train.evals",
    "train": "t0train.training",
    "write_report": "t0train.report",
}

__version__: str
"""See `t0train.core.version`."""

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> object:
        """Import a public name, or look the version up, when it is first used (PEP 562)."""
        if name == "__version__":
            value: object = import_module("t0train.core.version").t0train_version()
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """What the package holds, with the public names that are not imported yet."""
        return sorted({*globals(), *__all__})
