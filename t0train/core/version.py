"""The version of t0train that is installed."""

from __future__ import annotations

from functools import cache


@cache
def t0train_version() -> str:
    """The tag, or for other commits the next version with their number and hash; `0+unknown` if not installed."""
    from importlib.metadata import distributions  # takes longer to import than t0train itself

    return next((found.version for found in distributions(name="t0train")), "0+unknown")
