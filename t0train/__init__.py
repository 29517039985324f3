"""t0train: train T0, that is T5 made to solve unseen tasks by multitask fine-tuning on natural-language prompts."""

from typing import TYPE_CHECKING

__version__: str
"""The version that was installed: the tag, or for other commits the next version with their number and hash."""

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> object:
        """Look the version up when it is first used: importing `importlib.metadata` takes longer than this package."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import distributions

        version = next((found.version for found in distributions(name="t0train")), "0+unknown")  # not installed
        globals()[name] = version
        return version
