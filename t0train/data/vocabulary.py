"""The vocabulary: a sentencepiece model, applied to raw text as T5's own pipeline applies it.

Source: seqio `SentencePieceVocabulary` with `extra_ids=100`, the class that T0 was trained with. Ids come from the
sentencepiece library itself, so "</s>" or "<unk>" inside a text stays text; a tokenizer that parses those strings as
special tokens would give other ids. T5's hundred sentinels are pieces of the model: "<extra_id_0>" as a word of its own
is id 32,099.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import file_state
from t0train.core.hashing import content_hash, file_sha256

PAD_ID = 0
EOS_ID = 1
SENTINELS = 100
_T5_PIECES = 32_000  # of T5's spiece.model; its checkpoints have 32,128 rows, of which the sentinels take 100
T5_HUB_ID = (
    "google/t5-v1_1-small"  # every T5 and T5 1.1 model has the same spiece.model; this is the smallest repository
)
MODEL_NAME = "spiece.model"
_SENTINEL = "\u2581<extra_id_{}>"

_AWKWARD = (
    "A plain sentence, with a number: 1,234.5!",
    "two  blanks,\ttab,\nnewline\n\nand a trailing blank ",
    " leading blank",
    "</s> <unk> <pad> <extra_id_0> <NO LABEL> ||| {{ braces }}",
    "naïve café ﬁle Ⅳ ½ \uff46\uff55\uff4c\uff4c \uff57ide Straße Œuvre",
    "日本語 Ελληνικά русский العربية \U0001f642",
    "Choices: - A. yes - B. no; (True, False, or Neither?) 'quoted' \u201ccurly\u201d \u2013 \u2014",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen",
    "The <extra_id_0> walks",
    "hmmm ----",
    "",
)


class Vocabulary:
    """Text to ids and back. Ids are uint16: pad is 0, EOS is 1; `encode` adds neither.

    A model of 32,000 pieces, T5's number, gets the sentinels that T5's pipeline appends to it: <extra_id_99> is id
    32,000 and <extra_id_0> is id 32,099. Any other vocabulary is taken as it is, with whatever sentinels it contains.

    Attributes:
        path: the sentencepiece model.
        size: number of ids, appended sentinels included. A model's embedding has at least as many rows.
        sentinels: how many were appended: 100 or 0.
        unknown_id: id of characters that no piece holds.
    """

    pad_id = PAD_ID
    eos_id = EOS_ID

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise UserError(f"{path} is a folder, but a sentencepiece model (a file) is expected there.")
        with explain_os_errors("read", path):
            self._state = file_state(path)
            content = path.read_bytes()
        self._sha256 = hashlib.sha256(content).hexdigest()
        model = _load(content, path)
        self.sentinels = SENTINELS if _lacks_sentinels(model) else 0
        self._model = _load(content + _sentinel_pieces(), path) if self.sentinels else model
        self.size: int = self._model.get_piece_size()
        self.unknown_id: int = self._model.unk_id()
        found = (self._model.pad_id(), self._model.eos_id())
        if found != (PAD_ID, EOS_ID):
            raise UserError(
                f"{path}: pad and EOS have the ids {found}, but T5 needs {(PAD_ID, EOS_ID)}; train the sentencepiece "
                "model with pad_id=0, eos_id=1, unk_id=2, bos_id=-1."
            )
        if self.size > 1 << 16:
            raise UserError(f"{path} has {self.size:,} pieces, but the token store holds ids below 65,536.")

    def __repr__(self) -> str:
        return f"Vocabulary({str(self.path)!r}, size={self.size})"

    def encode(self, text: str) -> NDArray[np.uint16]:
        """The ids of `text`, without EOS."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        """The ids of each text, without EOS; on one core, and faster than a loop over `encode`."""
        ids = self._model.encode(list(texts), out_type="numpy", num_threads=1)
        return [piece_ids.astype(np.uint16) for piece_ids in ids]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of `ids`. Padding, EOS and ids that the sentencepiece model does not know are left out."""
        known = [int(i) for i in ids if i not in (PAD_ID, EOS_ID) and i < self.size]
        return str(self._model.decode(known))

    def pieces(self) -> list[str]:
        """The piece of each id."""
        pieces: list[str] = self._model.id_to_piece(list(range(self.size)))
        return pieces

    @property
    def spells_bytes(self) -> bool:
        """Whether it spells unknown characters as bytes; T5's own does not."""
        return any(self._model.is_byte(index) for index in range(self.size))

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the vocabulary: its file, and the ids that it gives to a fixed corpus of awkward strings.

        The latter tell releases of the library apart, which choose differently among segmentations of equal score.
        """
        ids = [piece_ids.tolist() for piece_ids in self.encode_many([*_AWKWARD, *self._ties()])]
        return content_hash({"file": self._sha256, "ids": ids})

    def _ties(self) -> list[str]:
        """Texts that have several segmentations of equal score: of "lll" into "l" and "ll", for instance."""
        pieces = self.pieces()
        known = set(pieces)
        repeated = [piece for piece in pieces[EOS_ID + 1 :] if "\u2581" not in piece and 2 * piece in known]
        return [count * piece for piece in repeated[:100] for count in (3, 4, 5)]

    def check_unchanged(self) -> None:
        """Refuse to go on where the file is not the one any more that this vocabulary was read from.

        Raises:
            UserError: it was replaced or written to.
        """
        with explain_os_errors("read", self.path):
            state = file_state(self.path)
            if state != self._state and file_sha256(self.path) != self._sha256:
                raise UserError(
                    f"the vocabulary {self.path} changed while it was in use; run the same command again, which takes "
                    "the new one, or put the old one back."
                )
            self._state = state


def _load(content: bytes, path: Path) -> Any:
    """The library's processor for a serialised model."""
    model = sentencepiece.SentencePieceProcessor()
    try:
        readable = model.LoadFromSerializedProto(content) and _is_whole(content)
        model.id_to_piece(list(range(model.get_piece_size())))  # fails for bytes that are no UTF-8
    except (RuntimeError, ValueError):  # its text names a line of C++
        readable = False
    if not readable:
        raise UserError(
            f"{path} is not a sentencepiece model, or a damaged one ({len(content):,} bytes); get it again, or point "
            "data.vocabulary to another one."
        )
    return model


def _is_whole(content: bytes) -> bool:
    """Whether the settings are there that follow the pieces: the pieces alone are what is left of a file cut short."""
    from google.protobuf.message import DecodeError
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        return False
    return bool(model.pieces) and model.HasField("trainer_spec") and model.HasField("normalizer_spec")


def _lacks_sentinels(model: Any) -> bool:
    first = _SENTINEL.format(0)
    return model.get_piece_size() == _T5_PIECES and all(
        model.piece_to_id(piece) == model.unk_id() for piece in (first, first[1:])
    )


def _sentinel_pieces() -> bytes:
    """The sentinels as a serialised model: protobuf appends what follows in the same stream to its lists."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    added = ModelProto()
    for number in reversed(range(SENTINELS)):
        added.pieces.add(piece=_SENTINEL.format(number), score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
    return bytes(added.SerializeToString())


def refuse_other_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Compare the tokenizer files that lie in a model's folder with the vocabulary that makes the ids for it.

    Reads `spiece.model`, `tokenizer.json`, `tokenizer_config.json` and `added_tokens.json`, as far as they are there.

    Args:
        vocabulary: what makes the ids.
        folder: the model's folder; nothing happens if it holds no tokenizer.

    Raises:
        UserError: the model was trained with other pieces, or with tokens that this vocabulary does not have; or one
            of those files is damaged.
    """
    pieces = vocabulary.pieces()
    try:
        theirs = _tokens_of(folder)
        if odd := [token for i, token in theirs if not isinstance(i, int) or not isinstance(token, str)]:
            raise TypeError(f"{odd[0]!r} is no token, or has no number")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the tokenizer files in {folder} do not list tokens and ids as transformers writes them "
            f"({type(error).__name__}: {error}); get the model again."
        ) from error
    wrong = sorted((i, token) for i, token in theirs if not _is_known(i, token, pieces))
    if wrong:
        i, token = wrong[0]
        ours = repr(pieces[i]) if i < len(pieces) else "nothing"
        raise UserError(
            f"the model in {folder} was made for another vocabulary than {vocabulary.path}: {len(wrong):,} of its "
            f"{len(theirs):,} tokens differ; the first, id {i}, is {token!r} there and {ours} here. Set "
            "data.vocabulary to the model's own sentencepiece model, or choose another model.init_from."
        )


def _tokens_of(folder: Path) -> set[tuple[int, str]]:
    """(id, token) of all that the tokenizer files of a model's folder list."""
    whole = _read_json(folder / "tokenizer.json")
    tokens = {(token["id"], token["content"]) for token in whole.get("added_tokens") or ()}
    if (own := folder / MODEL_NAME).is_file():
        tokens |= set(enumerate(Vocabulary(own).pieces()))
    if isinstance(vocabulary := whole.get("model", {}).get("vocab"), list):  # of sentencepiece's kind
        tokens |= {(i, piece) for i, (piece, _) in enumerate(vocabulary)}
    declared = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    tokens |= {(int(i), token["content"]) for i, token in declared.items()}
    return tokens | {(i, token) for token, i in _read_json(folder / "added_tokens.json").items()}


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's folder; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}; get the model again.") from error
    return content if isinstance(content, dict) else {}


def _is_known(i: int, token: str, pieces: Sequence[str]) -> bool:
    """Whether `token` is the piece `i`; transformers lists sentinels without the mark of a word's beginning.

    Sentinels that we have no id for stand in no text that t0train makes: they do no harm.
    """
    is_sentinel = token.removeprefix("\u2581").startswith("<extra_id_")
    if i >= len(pieces):
        return is_sentinel
    return token == pieces[i] or (is_sentinel and token == pieces[i].removeprefix("\u2581"))


def load_vocabulary(spec: str | Path) -> Vocabulary:
    """The vocabulary at a path, in a folder (`spiece.model`), of a hub id, or T5's own (`t5`).

    Raises:
        UserError: nothing there, not a sentencepiece model, or the hub cannot be reached.
    """
    path = Path(spec)
    if path.is_dir():
        path = path / MODEL_NAME
    if path.is_file():
        return Vocabulary(path)
    if isinstance(spec, Path) or spec.startswith((".", "/", "~")) or spec.endswith(".model") or spec.count("/") > 1:
        raise UserError(
            f"data.vocabulary: no sentencepiece model at {path}; give the path of one, a hub id, or `t5` for T5's own."
        )
    return Vocabulary(_from_hub(T5_HUB_ID if spec == "t5" else spec))


def _from_hub(hub_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(hub_id, MODEL_NAME))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        # httpx errors reach us as OSError or as the hub's own LocalEntryNotFoundError (a FileNotFoundError).
        raise UserError(
            f"cannot get {MODEL_NAME} of {hub_id} from the Hugging Face hub ({type(error).__name__}); without a "
            "network, set data.vocabulary to the path of a sentencepiece model on this machine."
        ) from error
