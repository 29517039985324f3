"""What a run needs before it has it: parameters, memory, time and cost, computed without torch."""

from t0train.estimate.devices import DEVICES, Device
from t0train.estimate.estimator import Estimate, estimate

__all__ = ["DEVICES", "Device", "Estimate", "estimate"]
