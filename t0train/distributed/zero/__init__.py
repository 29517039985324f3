"""DeepSpeed's ZeRO 1, 2 and 3, with updates that are exact for Adafactor and AdamW."""

from t0train.distributed.zero.deepspeed_config import deepspeed_config, import_deepspeed
from t0train.distributed.zero.deepspeed_engine import ZeroEngine
from t0train.distributed.zero.zero_layout import ZeroLayout, bind_zero

__all__ = ["ZeroEngine", "ZeroLayout", "bind_zero", "deepspeed_config", "import_deepspeed"]
