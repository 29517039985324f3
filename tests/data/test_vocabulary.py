from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from t0train.core.errors import UserError
from t0train.data import Vocabulary, load_vocabulary, refuse_other_vocabulary
from tests.data.conftest import train_vocabulary


def test_ids_of_the_reference_vocabulary(t5_vocabulary: Path) -> None:
    vocabulary = load_vocabulary(t5_vocabulary)
    # The first is the example of T5's own documentation; both stand in the README of the real rows.
    german = vocabulary.encode("translate English to German: That is good.")
    assert german.tolist() == [13959, 1566, 12, 2968, 10, 466, 19, 207, 5]
    assert german.dtype == np.uint16
    review = vocabulary.encode("Is this review positive or negative?")
    assert review.tolist() == [27, 7, 48, 1132, 1465, 42, 2841, 58]
    assert vocabulary.size == 32_100  # 32,000 pieces and T5's hundred sentinels


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


def as_seqio_loads(path: Path) -> Any:
    """The model of seqio's SentencePieceVocabulary(path, extra_ids=100), written down again from its source."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString(path.read_bytes())
    for i in reversed(range(100)):
        model.pieces.add(piece=f"\u2581<extra_id_{i}>", score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
    return SentencePieceProcessor(model_proto=model.SerializeToString())


WITH_SPECIAL_NAMES = [
    "the end </s> of it",
    "dog</s> the",
    "</s>",
    "<pad>",
    "gigaword says <unk> here",
    "The <extra_id_0> walks in <extra_id_1> park",
    "<extra_id_99>",
    "  <extra_id_5>  , then",
    "a<extra_id_0>b (<extra_id_3>)",
    "<extra_id_1><extra_id_2>",
    "<extra_id_100> <extra_id_1",
]


def test_special_names_in_texts_have_the_ids_that_seqio_gives_them(t5_vocabulary: Path) -> None:
    vocabulary, oracle = load_vocabulary(t5_vocabulary), as_seqio_loads(t5_vocabulary)
    assert vocabulary.encode("The <extra_id_0> walks").tolist() == [37, 32_099, 10_681]
    for text in WITH_SPECIAL_NAMES:
        ids = vocabulary.encode(text)
        assert ids.tolist() == oracle.encode(text)
        assert not set(ids.tolist()) & {0, 1}
        assert vocabulary.decode(ids) == oracle.decode(ids.tolist())
    assert vocabulary.pieces() == [oracle.id_to_piece(i) for i in range(32_100)]


def test_other_vocabularies_are_taken_as_they_are(vocabulary_file: Path, t5_vocabulary: Path, tmp_path: Path) -> None:
    small = load_vocabulary(vocabulary_file)
    assert (small.sentinels, small.size) == (0, len(small.pieces()))
    assert small.size < 200
    assert small.encode("<extra_id_0>").max() < small.size
    complete = tmp_path / "complete.model"
    complete.write_bytes(as_seqio_loads(t5_vocabulary).serialized_model_proto())
    ours = load_vocabulary(complete)
    assert (ours.sentinels, ours.size) == (0, 32_100)
    assert ours.encode("The <extra_id_0> walks").tolist() == [37, 32_099, 10_681]


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


def best_segmentations(word: str, scores: dict[str, float]) -> list[tuple[str, ...]]:
    """All segmentations into pieces with the highest sum of scores, by trying every one."""
    found: list[tuple[float, tuple[str, ...]]] = []

    def extend(start: int, parts: tuple[str, ...]) -> None:
        if start == len(word):
            found.append((math.fsum(scores[part] for part in parts), parts))
        for stop in range(start + 1, len(word) + 1):
            if word[start:stop] in scores:
                extend(stop, (*parts, word[start:stop]))

    extend(0, ())
    best = max((score for score, _ in found), default=0.0)
    return [parts for score, parts in found if math.isclose(score, best, abs_tol=1e-9)]


@pytest.mark.parametrize("name", ["t5_vocabulary", "vocabulary_file"])
def test_the_fingerprint_reads_texts_whose_best_segmentation_is_a_tie(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases of sentencepiece choose differently among them, so these ids tell such releases apart."""
    path = request.getfixturevalue(name)
    vocabulary = load_vocabulary(path)
    read: list[str] = []
    encode_many = Vocabulary.encode_many

    def record(self: Vocabulary, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        read.extend(texts)
        return encode_many(self, texts)

    monkeypatch.setattr(Vocabulary, "encode_many", record)
    assert vocabulary.fingerprint
    model = SentencePieceProcessor(model_file=str(path))
    scores = {
        model.id_to_piece(i): model.get_score(i) for i in range(model.get_piece_size()) if not model.is_control(i)
    }
    words = {"\u2581" + word for text in read for word in text.split() if word.isascii() and len(word) < 12}
    ties = [word for word in words if len(best_segmentations(word, scores)) > 1]
    assert ties
    if name == "t5_vocabulary":
        assert "\u2581----" in ties


def test_the_fingerprint_is_that_of_the_bytes_that_were_read(vocabulary_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(vocabulary_file.read_bytes())
    vocabulary = load_vocabulary(path)
    vocabulary.check_unchanged()
    train_vocabulary(path, extra=" zzz qqq")
    assert vocabulary.fingerprint == load_vocabulary(vocabulary_file).fingerprint
    with pytest.raises(UserError, match="changed while it was in use"):
        vocabulary.check_unchanged()
    path.write_bytes(vocabulary_file.read_bytes())
    vocabulary.check_unchanged()


def test_damaged_models_are_refused_in_a_sentence(vocabulary_file: Path, tmp_path: Path) -> None:
    whole = vocabulary_file.read_bytes()
    path = tmp_path / "spiece.model"
    cut_between_pieces = ModelProto(pieces=ModelProto.FromString(whole).pieces[:200]).SerializeToString()
    assert whole.startswith(cut_between_pieces)  # the library takes it without a word
    no_utf8 = whole.replace("\u2581".encode(), b"\xff\xff\xff")
    for content in (
        b"",
        whole[: len(whole) // 2],
        whole[:-1],
        bytes(1000),
        b"\x1f\x8b\x08" * 300,
        b"<html></html>",
        cut_between_pieces,
        no_utf8,
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"spiece\.model is not a sentencepiece model, .*{len(content):,} bytes"):
            load_vocabulary(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="no sentencepiece model at"):
        load_vocabulary(tmp_path)
    with pytest.raises(UserError, match="is a folder, but a sentencepiece model"):
        Vocabulary(path)


def test_a_model_made_for_another_vocabulary_is_told(vocabulary_file: Path, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(vocabulary_file)
    pieces = vocabulary.pieces()
    refuse_other_vocabulary(vocabulary, tmp_path)  # no tokenizer there
    (tmp_path / "spiece.model").write_bytes(vocabulary_file.read_bytes())
    names = dict(enumerate(pieces[:3]))
    sentinels = {len(pieces) + i: f"<extra_id_{99 - i}>" for i in range(100)}

    def write(name: str, content: object) -> None:
        (tmp_path / name).write_text(json.dumps(content))

    write("tokenizer.json", {"added_tokens": [{"id": i, "content": token} for i, token in (names | sentinels).items()]})
    write("tokenizer_config.json", {"added_tokens_decoder": {str(i): {"content": token} for i, token in names.items()}})
    write("added_tokens.json", {token: i for i, token in sentinels.items()})
    refuse_other_vocabulary(vocabulary, tmp_path)

    write("added_tokens.json", {"<sep>": len(pieces)})
    with pytest.raises(UserError, match=rf"1 of its .* tokens differ.*id {len(pieces)}, is '<sep>' there and nothing"):
        refuse_other_vocabulary(vocabulary, tmp_path)
    write("added_tokens.json", {})
    write("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "<sep>"}}})
    with pytest.raises(UserError, match="id 5, is '<sep>' there"):
        refuse_other_vocabulary(vocabulary, tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    train_vocabulary(tmp_path / "spiece.model", extra=" zzz qqq")
    with pytest.raises(UserError, match="another vocabulary"):
        refuse_other_vocabulary(vocabulary, tmp_path)
    (tmp_path / "spiece.model").unlink()
    write("tokenizer.json", {"model": {"vocab": [[piece, 0.0] for piece in [*pieces[:-1], "other"]]}})
    with pytest.raises(UserError, match=f"id {len(pieces) - 1}, is 'other' there"):
        refuse_other_vocabulary(vocabulary, tmp_path)
    for text in ("{", "[" * 100_000):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(UserError, match=r"tokenizer\.json is not JSON"):
            refuse_other_vocabulary(vocabulary, tmp_path)
    odd = [{"added_tokens": [5]}, {"added_tokens": [{"id": 1}]}, {"model": []}, {"model": {"vocab": [[[], 0.0]]}}]
    for content in [*odd, {"model": {"vocab": [1]}}, {"added_tokens": [{"id": "x", "content": "a"}]}]:
        write("tokenizer.json", content)
        with pytest.raises(UserError, match=r"do not list tokens and ids as transformers writes them \("):
            refuse_other_vocabulary(vocabulary, tmp_path)


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
