from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from t0train.cli.data import app
from t0train.config import RunConfig
from t0train.core.errors import UserError
from tests.data.conftest import Configure


@pytest.fixture
def run(configure: Configure, tmp_path: Path) -> str:
    config: RunConfig = configure()
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"mixture": {"name": "catalogue"}, "data": config.data.model_dump()}))
    return str(path)


def call(*arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


def test_prepare_verify_inspect(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("prepare", run, "--workers", "1", "--json")
    prepared = json.loads(capsys.readouterr().out)
    assert {task["task"]: task["source_rows"] for task in prepared} == {
        "colours_ask": 2500,
        "colours_only_blue": 2500,
        "colours_open": 2500,
        "stories_pick": 300,
        "stories_tell": 300,
    }
    call("prepare", run, "--workers", "1")
    assert "0 made, 5 already there" in capsys.readouterr().out

    examples = sum(task["rows"] for task in prepared)
    for target in (run, str(tmp_path / "store")):
        call("verify", target)
        assert f"{examples:,} examples, all checksums match" in capsys.readouterr().out

    figure = tmp_path / "lengths.png"
    call("inspect", run, "data.packing=next_fit", "--rows", "2", "--json", "--histogram", str(figure))
    found = json.loads(capsys.readouterr().out)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert [row["row"] for row in found["rows"]] == [0, 1]
    for row in found["rows"]:
        assert [segment["segment"] for segment in row["segments"]] == list(range(1, len(row["segments"]) + 1))
        for segment in row["segments"]:
            if segment["task"] == "colours_ask":
                assert segment["input"].startswith("What colour is the")
                assert segment["target"] in ("red", "green", "blue")
    call("inspect", run, "--rows", "1")
    text = capsys.readouterr().out
    assert "window 0, row 0" in text
    assert "  [1] " in text
    assert "best_fit, over 16,384 examples" in text


def test_damage_is_named_and_repaired_by_prepare(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("prepare", run, "--workers", "1")
    (tokens,) = (tmp_path / "store" / "colours_open").glob("*/tokens.arrow")
    content = bytearray(tokens.read_bytes())
    content[len(content) // 2] ^= 4
    tokens.write_bytes(content)
    for target in (run, str(tmp_path / "store")):
        with pytest.raises(UserError, match=r"(?s)1 of 5.*colours_open.*t0train data prepare"):
            call("verify", target)
    capsys.readouterr()
    call("prepare", run, "--workers", "1")
    assert "1 made, 4 already there" in capsys.readouterr().out
    call("verify", run)


def test_bad_input_is_explained(run: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="t0train data prepare"):
        call("inspect", run)
    with pytest.raises(UserError, match="is no token store"):
        call("verify", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.max_targets"):
        call("prepare", run, "data.max_targets=0")
    blocked = tmp_path / "a_file"
    blocked.write_text("")
    with pytest.raises(UserError, match="is a file, but a folder is needed"):
        call("prepare", run, f"data.store={blocked}")
    assert not (tmp_path / "store").exists()


def test_help_needs_no_heavy_library() -> None:
    program = (
        "import sys; from t0train.cli.data import app\n"
        "try: app(['prepare', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'matplotlib', 'sentencepiece'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "Example: t0train data prepare" in done.stdout


def test_the_data_package_imports_no_torch() -> None:
    program = "import sys, t0train.data; print(sorted({'torch', 'transformers', 'datasets'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
