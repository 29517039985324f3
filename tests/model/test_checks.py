from __future__ import annotations

import pytest
import torch
from torch import Tensor

import t0train.model.attention.dense as dense
import t0train.model.attention.segment as segment
from t0train.core.errors import UserError
from t0train.model import check_packing, init_model
from tests.model.oracle import as_rows, random_examples

ROWS = as_rows([random_examples([(40, [4])]), random_examples([(5, [4]), (17, [2, 3, 2]), (9, [7])], seed=1)], 48, 20)


@pytest.mark.parametrize("backend", ["eager", "segment", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sound_packing_passes(backend: str, precision: str) -> None:
    model = init_model("tiny", vocab_size=97, attention=backend)  # mesh dropout 0.1, training mode
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        check_packing(model, ROWS)
    assert model.training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_mask_that_forgets_segments_is_noticed(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    sound = dense._visible

    def leaky(queries: Tensor, keys: Tensor, causal: bool) -> Tensor:
        return sound((queries > 0).long(), (keys > 0).long(), causal)

    monkeypatch.setattr(dense, "_visible", leaky)
    model = init_model("tiny", vocab_size=97, attention="eager")
    with (
        pytest.raises(UserError, match=r"packing is broken: example 1 of row 1 .* attention: eager"),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        check_packing(model, ROWS)


def test_merged_segments_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = segment._runs
    monkeypatch.setattr(segment, "_runs", lambda segments: sound((segments > 0).astype(segments.dtype)))
    with pytest.raises(UserError, match="packing is broken"):
        check_packing(init_model("tiny", vocab_size=97, attention="segment"), ROWS)
