from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from t0train.core.errors import UserError
from t0train.data import load_vocabulary
from tests.data.conftest import train_vocabulary


def test_ids_of_the_reference_vocabulary(t5_vocabulary: Path) -> None:
    vocabulary = load_vocabulary(t5_vocabulary)
    # The first is the example of T5's own documentation; both stand in the README of the real rows.
    german = vocabulary.encode("translate English to German: That is good.")
    assert german.tolist() == [13959, 1566, 12, 2968, 10, 466, 19, 207, 5]
    assert german.dtype == np.uint16
    review = vocabulary.encode("Is this review positive or negative?")
    assert review.tolist() == [27, 7, 48, 1132, 1465, 42, 2841, 58]
    assert vocabulary.size == 32_000


def test_ids_equal_the_tokenizer_of_transformers_on_real_text(t5_vocabulary: Path, real_data: Path) -> None:
    from transformers import T5TokenizerFast

    oracle = T5TokenizerFast.from_pretrained(str(t5_vocabulary.parent))
    vocabulary = load_vocabulary(t5_vocabulary.parent)
    texts: list[str] = []
    for dataset, column in (("trec", "text"), ("imdb", "text"), ("xsum", "document"), ("ag_news", "text")):
        path = next((real_data / dataset / "default").glob("*.parquet"))
        texts += pq.read_table(path, columns=[column]).column(column).to_pylist()[:150]
    texts += [
        "two  blanks,\ttab,\nnewline ",
        "naïve café ﬁle ½ Straße",
        "日本語 \U0001f642",
        "A - B; \u201cC\u201d \u2014 D",
    ]
    # On control characters (mis-decoded cp1252 in imdb) the two differ; T0 used sentencepiece, and so do we.
    ordinary = [text for text in texts if not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in text)]
    assert len(ordinary) > 0.98 * len(texts)
    texts = ordinary
    expected = oracle(texts, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in vocabulary.encode_many(texts)] == expected


def test_names_of_special_tokens_are_text(t5_vocabulary: Path) -> None:
    vocabulary = load_vocabulary(t5_vocabulary)
    for text in ("the end </s> of it", "<pad>", "gigaword says <unk> here", "<extra_id_0>"):
        ids = vocabulary.encode(text)
        assert not set(ids.tolist()) & {0, 1}
        assert ids.max() < 32_000
        letters = "".join(filter(str.isalpha, text))
        assert "".join(filter(str.isalpha, vocabulary.decode(ids))) == letters


def test_decode_gives_back_normalised_text(vocabulary_file: Path) -> None:
    vocabulary = load_vocabulary(vocabulary_file)
    text = "What colour is the  red apple?\n Tell"
    expected = " ".join(unicodedata.normalize("NFKC", text).split())
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == expected
    padded = [*ids.tolist(), vocabulary.eos_id, vocabulary.pad_id, vocabulary.pad_id, 60_000]
    assert vocabulary.decode(padded) == expected
    assert vocabulary.encode("").tolist() == []


def test_fingerprint_tells_vocabularies_apart(vocabulary_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other_name.model"
    copy.write_bytes(vocabulary_file.read_bytes())
    other = train_vocabulary(tmp_path / "other.model", extra=" zzz qqq")
    here = load_vocabulary(vocabulary_file).fingerprint
    assert load_vocabulary(copy).fingerprint == here
    assert load_vocabulary(other).fingerprint != here


def test_what_is_no_t5_vocabulary_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "spiece.model"
    text.write_text("not a model")
    with pytest.raises(UserError, match="is not a sentencepiece model"):
        load_vocabulary(text)
    with pytest.raises(UserError, match="no sentencepiece model at"):
        load_vocabulary(str(tmp_path / "absent.model"))
    with pytest.raises(UserError, match="no sentencepiece model at"):
        load_vocabulary(tmp_path / "absent")
    llama_like = train_vocabulary(tmp_path / "bos.model", pad_id=-1, eos_id=2, unk_id=0, bos_id=1)
    with pytest.raises(UserError, match="pad and EOS have the ids"):
        load_vocabulary(llama_like)


def test_without_a_network_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, str]] = []

    def offline(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"set data\.vocabulary to the path"):
        load_vocabulary("someone/their-t5")
    with pytest.raises(UserError, match="google/t5-v1_1-small"):
        load_vocabulary("t5")
    assert asked[0] == ("someone/their-t5", "spiece.model")
