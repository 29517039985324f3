"""The small world of the training tests."""

from __future__ import annotations

from tests.train.conftest import world

__all__ = ["world"]
