"""The toy P3: a small prompted collection of our own, to see the whole of t0train at work in minutes on a CPU.

Ten datasets to train on and four held out, several templates each. It tests whether a model carries what it learned to
prompts with other wording and to reviews and messages of another domain; no new skill is needed.
"""

from t0train.toy.collection import DATASETS, ToyDataset, build_toy

__all__ = ["DATASETS", "ToyDataset", "build_toy"]
