"""`import t0train`: what it offers, and that it costs nothing until it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import t0train

PROGRAM = """
import sys
import t0train
slow = {"torch", "numpy", "pydantic", "transformers", "datasets"} & set(sys.modules)
assert not slow, slow
assert set(t0train.__all__) <= set(dir(t0train))
"""


def test_importing_it_loads_nothing() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


@pytest.mark.parametrize("name", sorted(set(t0train.__all__) - {"__version__"}))
def test_every_public_name_is_that_of_its_package(name: str) -> None:
    home = importlib.import_module(t0train._HOMES[name])
    assert getattr(t0train, name) is getattr(home, name)
    assert name in home.__all__


def test_packages_are_no_names_of_functions() -> None:
    """`import t0train.training` must leave `t0train.train` the function."""
    importlib.import_module("t0train.training")
    assert callable(t0train.train)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = t0train.trian  # type: ignore[attr-defined]


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "t0train", "--version"], capture_output=True, text=True, check=True)
    assert t0train.__version__ in done.stdout
