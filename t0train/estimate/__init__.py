"""What a run needs before it has it: parameters, memory, time and cost, computed without torch."""

from t0train.estimate.estimator import Estimate, estimate
from t0train.estimate.hardware import DEVICES, Device

__all__ = ["DEVICES", "Device", "Estimate", "estimate"]
