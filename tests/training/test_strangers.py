"""A checkpoint or run folder of a stranger: whatever is planted in it, no command executes it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from t0train.checkpoint import CheckpointWriter, Manifest, read_manifest, read_state
from t0train.config.schema import OptimizerConfig
from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256
from t0train.distributed import World
from t0train.model import T5, init_model, load_model
from t0train.optim import build_optimizer, optimizer_state
from tests.cli.test_eval import t0train
from tests.evals.films import train_on_films, write_films
from tests.training.planted import Payload, change_metadata, compress_first, seal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints of steps 1 and 2."""
    torch.set_num_threads(1)
    return train_on_films(write_films(tmp_path_factory.mktemp("films")))


@pytest.fixture
def received(run: Path, tmp_path: Path) -> Path:
    """A copy of it, to plant things in."""
    return Path(shutil.copytree(run, tmp_path / "received"))


def commands(run: Path, received: Path) -> dict[str, tuple[str | Path, ...]]:
    """Every command that opens a checkpoint."""
    elsewhere = received.parent
    return {
        "eval": ("eval", received, "--out", elsewhere / "scores"),
        "eval --all-checkpoints": ("eval", received, "--all-checkpoints"),
        "generate": ("generate", received, "the film was good ?"),
        "export": ("export", received, elsewhere / "exported"),
        "train --resume": (
            "train",
            run.parent / "run.yaml",
            f"output={elsewhere / 'continued'}",
            "train.steps=3",
            "--resume",
            received,
        ),
        "model.init_from": (
            "train",
            run.parent / "run.yaml",
            f"output={elsewhere / 'started'}",
            f"model={{init_from: {received}, size: ''}}",
        ),
    }


@pytest.mark.parametrize(
    "command", ["eval", "eval --all-checkpoints", "generate", "export", "train --resume", "model.init_from"]
)
@pytest.mark.parametrize("place", ["the index", "a tensor"])
def test_no_command_executes_a_planted_payload(run: Path, received: Path, command: str, place: str) -> None:
    marker = received.parent / "executed"
    for checkpoint in (received / "checkpoints").glob("step-*"):
        # torch executes a pickled index, and an entry that it calls no tensor
        in_index, as_object = partial(replaced, marker), partial(plant_object, checkpoint, marker)
        change_metadata(checkpoint, in_index if place == "the index" else as_object)
    arguments = commands(run, received)[command]
    if command == "eval --all-checkpoints":  # as rows that are not trained on may choose
        suite = received.parent / "own.yaml"
        suite.write_text("name: own\ntasks:\n  - {dataset: films, split: validation}\n")
        arguments = (*arguments, "--suite", suite)
    ended = t0train(*arguments)
    assert not marker.exists()
    assert ended.returncode == 2, ended.stderr
    assert ("names posix.mkdir" if place == "the index" else "BytesStorageMetadata") in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def replaced(marker: Path, metadata: Any) -> Payload:
    return Payload(marker)


def plant_object(checkpoint: Path, marker: Path, metadata: Any) -> None:
    """Have the embedding described as an object of Python."""
    file = checkpoint / "state" / "__9_0.distcp"
    torch.save(Payload(marker), file)
    name = "model.shared.weight"
    metadata.state_dict_metadata[name] = BytesStorageMetadata()
    metadata.storage_data[MetadataIndex(name)] = _StorageInfo(file.name, 0, file.stat().st_size)


@pytest.mark.parametrize("command", ["eval", "generate", "export", "train --resume"])
def test_a_manifest_without_identity_is_one_sentence(run: Path, received: Path, command: str) -> None:
    for checkpoint in (received / "checkpoints").glob("step-*"):
        seal(checkpoint, identity=[])
    ended = t0train(*commands(run, received)[command])
    assert ended.returncode == 2, ended.stderr
    assert "manifest.json: identity: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, T5]:
    """A checkpoint of a very small model."""
    model = init_model("tiny", vocab_size=160, d_model=128, d_ff=16, d_kv=8)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig())
    writer = CheckpointWriter(tmp_path_factory.mktemp("checkpoints"), keep=1, world=World())
    state = {"model": dict(model.named_parameters()), "optimizer": optimizer_state(optimizer)}
    writer.start(state, model.config, Manifest(step=5, rows=(0, 3), identity={}, config=""))
    path = writer.finish()
    assert path is not None
    return path, model


@pytest.fixture
def checkpoint(written: tuple[Path, T5], tmp_path: Path) -> Path:
    """A copy of it, to plant things in."""
    return Path(shutil.copytree(written[0], tmp_path / written[0].name))


def test_what_is_not_planted_is_read(checkpoint: Path, written: tuple[Path, T5]) -> None:
    change_metadata(checkpoint, lambda metadata: metadata)
    found = dict(load_model(checkpoint).named_parameters())
    assert all(torch.equal(found[name], value) for name, value in written[1].named_parameters())


class EarlyPython311(pickle.Pickler):
    """Writes members of enumerations as Python 3.11.2 does."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


def test_what_an_early_python_has_written_is_read(checkpoint: Path, written: tuple[Path, T5]) -> None:
    index = checkpoint / "state" / ".metadata"
    found = pickle.loads(index.read_bytes())
    with index.open("wb") as file:
        EarlyPython311(file, protocol=4).dump(found)
    assert b"builtins" in index.read_bytes()
    seal(checkpoint)
    weights = dict(load_model(checkpoint).named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in written[1].named_parameters())


def moved(name: str) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = name

    return change


def first_place(**fields: Any) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        vars(next(iter(metadata.storage_data.values()))).update(fields)

    return change


def first_tensor(**fields: Any) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        vars(metadata.state_dict_metadata["model.shared.weight"]).update(fields)

    return change


def set_chunks(*chunks: tuple[tuple[int, ...], tuple[int, ...]]) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        tensor = metadata.state_dict_metadata["model.shared.weight"]
        kind = type(tensor.chunks[0])
        tensor.chunks[:] = [kind(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (moved("../model.json"), r"names '\.\./model\.json', which is no file of"),
        (moved("/etc/passwd"), r"names '/etc/passwd', which is no file of"),
        (moved("__7_0.distcp"), "which is no file of"),
        (moved("."), "which is no file of"),
        (first_place(relative_path=7), "holds a int where a str is expected"),
        (first_place(offset=10**9), "reads beyond the end of __0_0.distcp"),
        (first_place(offset=-1), "-1 is no size"),
        (first_place(length=2**70), "is no size"),
        (first_place(length=10), r"model.shared.weight at \[0, 0\] is not in its files as a whole"),
        (first_place(transform_descriptors=["stream.zstd/1"]), "decoded by"),
        (lambda metadata: metadata.storage_data.clear(), "is not in its files as a whole"),
        (lambda metadata: setattr(metadata, "state_dict_metadata", None), "has no tables"),
        (lambda metadata: [metadata], "holds a list where Metadata is expected"),
        (lambda metadata: "text", "holds a str where Metadata is expected"),
        (first_tensor(size=torch.Size([1 << 40, 128])), "are not the whole of it"),
        (set_chunks(((0, 0), (160, 128)), ((0, 0), (160, 128))), "are not the whole of it"),
        (set_chunks(((100, 0), (160, 128))), "is not within it"),
        (set_chunks(((0,), (160 * 128,))), "is not within it"),
        (first_tensor(properties=None), "dtype is expected"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(
    checkpoint: Path, change: Callable[[Any], Any], complaint: str
) -> None:
    change_metadata(checkpoint, change)
    with pytest.raises(UserError, match=complaint):
        load_model(checkpoint)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"(((", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04K\x01Q."])
def test_an_index_that_is_no_pickle_of_ours_is_refused(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "state" / ".metadata").write_bytes(content)
    seal(checkpoint)
    with pytest.raises(UserError, match=r"\.metadata (is damaged|names os\.system)"):
        load_model(checkpoint)


def test_a_pickle_cannot_change_classes(checkpoint: Path) -> None:
    """A pickle may set attributes of the classes that it names, for as long as the process lives."""
    names_class = b"\x80\x04ctorch.distributed.checkpoint.filesystem\n_StorageInfo\n"
    sets_planted = b"N(X\x07\x00\x00\x00plantedK\x01d\x86b."
    (checkpoint / "state" / ".metadata").write_bytes(names_class + sets_planted)
    seal(checkpoint)
    with pytest.raises(UserError, match="damaged"):
        load_model(checkpoint)
    assert not hasattr(_StorageInfo, "planted")


def test_a_pickle_in_the_place_of_a_tensor_is_not_executed(checkpoint: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    def change(metadata: Any) -> None:
        place = metadata.storage_data[MetadataIndex("model.shared.weight", (0, 0))]
        file = checkpoint / "state" / "__9_0.distcp"
        torch.save([Payload(marker), torch.zeros(160, 128)], file)
        place.relative_path, place.offset, place.length = file.name, 0, file.stat().st_size

    change_metadata(checkpoint, change)
    with pytest.raises(UserError, match="cannot be read"):
        load_model(checkpoint)
    assert not marker.exists()


def test_compressed_tensors_are_refused(checkpoint: Path) -> None:
    compress_first(checkpoint)
    with pytest.raises(UserError, match="holds compressed tensors"):
        load_model(checkpoint)


def test_files_outside_or_not_listed_are_refused(checkpoint: Path) -> None:
    outside = checkpoint.parent / "outside"
    outside.write_text("secret")
    names = ["model.json", "state/.metadata", "state/__0_0.distcp"]
    own = {name: file_sha256(checkpoint / name) for name in names}
    for name in ("../outside", str(outside), "state/../../outside"):
        seal(checkpoint, own | {name: file_sha256(outside)})
        with pytest.raises(UserError, match=r"is damaged: .*outside.* leaves the folder"):
            read_manifest(checkpoint)
    for name in names:
        seal(checkpoint, {other: checksum for other, checksum in own.items() if other != name})
        with pytest.raises(UserError, match=f"{name} is not listed in manifest.json"):
            read_manifest(checkpoint)
    seal(checkpoint)
    (checkpoint / "state" / "__0.metadata").write_bytes(b"")  # which torch would read where .metadata fails
    with pytest.raises(UserError, match=r"state/__0\.metadata is not listed in manifest\.json"):
        read_manifest(checkpoint)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"step": "many"}, "step: Input should be a valid integer"),
        ({"step": -1}, "step: .*greater than or equal to 0"),
        ({"rows": [1]}, "rows"),
        ({"identity": []}, "identity: .*dictionary"),
        ({"changes": [3]}, "changes"),
        ({"further": 1}, "further: "),
    ],
)
def test_a_manifest_of_another_shape_is_refused(checkpoint: Path, changes: dict[str, Any], complaint: str) -> None:
    seal(checkpoint, **changes)
    with pytest.raises(UserError, match=complaint):
        read_manifest(checkpoint)


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000, '{"files": 3, "checksum": ""}'])
def test_a_manifest_that_is_none_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is missing or unreadable"):
        read_manifest(checkpoint)


def test_weights_that_are_not_finite_are_not_loaded(tmp_path: Path, written: tuple[Path, T5]) -> None:
    model = init_model("tiny", vocab_size=160, d_model=128, d_ff=16, d_kv=8)
    with torch.no_grad():
        dict(model.named_parameters())["decoder.block.1.layer.0.layer_norm.weight"][3] = torch.inf
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig())
    state = {"model": dict(model.named_parameters()), "optimizer": optimizer_state(optimizer)}
    writer = CheckpointWriter(tmp_path, keep=1, world=World())
    writer.start(state, model.config, Manifest(step=5, rows=(0, 3), identity={}, config=""))
    path = writer.finish()
    assert path is not None
    complaint = r"infinite or undefined values in model\.decoder\.block\.1\.layer\.0\.layer_norm\.weight"
    with pytest.raises(UserError, match=complaint):
        load_model(path)
    with pytest.raises(UserError, match=complaint):
        read_state(path, state)


LINKS = [
    ("checkpoints", "folder", "train"),
    ("checkpoints/step-00000002", "folder", "train"),
    (".lock", "file", "train"),
    ("eval", "folder", "eval"),
    ("eval/films_suite", "folder", "eval"),
    ("eval/films_suite/predictions", "folder", "eval"),
    ("report", "folder", "report"),
]


@pytest.mark.parametrize(("link", "kind", "command"), LINKS, ids=[link for link, *_ in LINKS])
def test_nothing_is_written_through_links(run: Path, received: Path, link: str, kind: str, command: str) -> None:
    target, place = received.parent / "mine", received / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(target)
    elif kind == "folder":
        target.mkdir()
    else:
        target.write_text("mine")
    place.symlink_to(target)
    files = {path: path.read_bytes() for path in (target, *target.rglob("*")) if path.is_file()}
    arguments: dict[str, tuple[str | Path, ...]] = {
        "train": ("train", run.parent / "run.yaml", f"output={received}", "train.steps=3"),
        "eval": ("eval", received, "--limit", "2"),
        "report": ("report", received),
    }
    ended = t0train(*arguments[command])
    assert ended.returncode == 2, ended.stderr
    assert f"{place}: it is a symbolic link" in ended.stderr or f"{place} is a symbolic link" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {path: path.read_bytes() for path in (target, *target.rglob("*")) if path.is_file()} == files


@pytest.mark.parametrize("link", ["config.resolved.yaml", "deviations.json", "checkpoints/latest", "events.jsonl"])
def test_a_link_in_the_place_of_a_file_that_is_replaced_is_replaced(run: Path, received: Path, link: str) -> None:
    target = received.parent / "mine"
    (received / link).rename(target)
    (received / link).symlink_to(target)
    before = target.read_bytes()
    ended = t0train("train", run.parent / "run.yaml", f"output={received}", "train.steps=3")
    assert ended.returncode == 0, ended.stderr
    assert target.read_bytes() == before
    assert not (received / link).is_symlink()


def test_a_damaged_event_log_is_one_sentence(run: Path, received: Path) -> None:
    with (received / "events.jsonl").open("a") as log:
        log.write("[]\n")
    for arguments in (
        ("train", run.parent / "run.yaml", f"output={received}", "train.steps=3"),
        ("train", run.parent / "run.yaml", f"output={received}"),
        ("report", received),
    ):
        ended = t0train(*arguments)
        assert ended.returncode == 2, ended.stderr
        assert "events.jsonl is damaged: line " in ended.stderr
        assert "Traceback" not in ended.stderr
