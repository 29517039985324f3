"""`install` against sdists made here: the real one is some other project's, and the network is no part of a test."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256
from t0train.prompts import install, load_templates
from t0train.prompts import install as install_function
from t0train.prompts.install import SDIST

TEMPLATES = b"templates: {x: !Template {name: n, jinja: '{{a}} ||| b', answer_choices: null}}"
ROOT = "promptsource-0.2.3/promptsource"
module = sys.modules[install_function.__module__]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T0TRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("T0TRAIN_TEMPLATES", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with two template files among things that must stay out; its hash takes the pinned one's place."""
    path = tmp_path / "download" / SDIST
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name in (
            f"{ROOT}/templates/reviews/templates.yaml",
            f"{ROOT}/templates/pairs/easy/templates.yaml",
            f"{ROOT}/templates/../../../../templates.yaml",
            f"{ROOT}/templates/../templates.yaml",
            "/tmp/templates.yaml",
            f"{ROOT}/templates/reviews/other.py",
            f"{ROOT}/templates.py",
        ):
            member = tarfile.TarInfo(name)
            member.size = len(TEMPLATES)
            archive.addfile(member, io.BytesIO(TEMPLATES))
        link = tarfile.TarInfo(f"{ROOT}/templates/link/templates.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    monkeypatch.setattr(module, "SDIST_SHA256", file_sha256(path))
    return path


def files(folder: Path) -> set[str]:
    """All but the lock file, which stays."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return paths - {".lock"}


WHOLE = {
    "promptsource-0.2.3/templates/reviews/templates.yaml",
    "promptsource-0.2.3/templates/pairs/easy/templates.yaml",
    f"promptsource-0.2.3/{SDIST}",
}


def test_only_template_files_are_unpacked(cache: Path, sdist: Path) -> None:
    folder = install(sdist)
    assert folder == cache / "promptsource-0.2.3" / "templates"
    assert files(cache) == WHOLE
    assert list(load_templates("pairs", "easy")) == ["n"]
    assert install(sdist) == folder
    assert files(cache) == WHOLE


@pytest.fixture
def pip(sdist: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run instead of pip, each of which leaves the sdist where it was told to."""
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert isinstance(command, list)
        assert not options.get("shell")
        commands.append(command)
        destination = Path(command[command.index("--dest") + 1])
        assert options["env"]["TMPDIR"] == str(destination)
        (destination / SDIST).write_bytes(sdist.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_pip_is_asked_once(cache: Path, pip: list[list[str]]) -> None:
    install()
    install()
    assert len(pip) == 1
    assert pip[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert files(cache) == WHOLE


def change(path: Path) -> None:
    """Of the same size, as only a comparison of contents notices."""
    path.write_bytes(path.read_bytes().replace(b"{{a}}", b"{{b}}"))


def add(path: Path) -> None:
    (path.parent.parent / "other").mkdir()
    (path.parent.parent / "other" / "templates.yaml").write_bytes(TEMPLATES)


@pytest.mark.parametrize("damage", [Path.unlink, change, add])
def test_a_damaged_collection_is_restored_from_the_sdist_beside_it(
    cache: Path, pip: list[list[str]], damage: Callable[[Path], None]
) -> None:
    folder = install()
    damage(folder / "reviews" / "templates.yaml")
    install()
    assert len(pip) == 1
    assert files(cache) == WHOLE
    assert (folder / "reviews" / "templates.yaml").read_bytes() == TEMPLATES


def test_a_damaged_sdist_is_fetched_again(cache: Path, pip: list[list[str]], sdist: Path) -> None:
    folder = install()
    (folder.parent / SDIST).write_bytes(b"cut")
    install()
    assert len(pip) == 2
    assert (folder.parent / SDIST).read_bytes() == sdist.read_bytes()


def test_a_changed_template_of_the_collection_is_refused(cache: Path, sdist: Path) -> None:
    folder = install(sdist)
    assert load_templates("reviews")
    assert load_templates("pairs", "easy")
    change(folder / "reviews" / "templates.yaml")
    with pytest.raises(UserError, match=r"reviews/templates.yaml was changed since.*prompts install"):
        load_templates("reviews")
    assert load_templates("pairs", "easy")
    install(sdist)
    assert load_templates("reviews")["n"].jinja == "{{a}} ||| b"


def test_a_template_that_was_put_into_the_collection_is_refused(cache: Path, sdist: Path) -> None:
    add(install(sdist) / "reviews" / "templates.yaml")
    with pytest.raises(UserError, match=r"other/templates.yaml is not part of promptsource 0.2.3.*data.templates"):
        load_templates("other")


def test_a_collection_without_its_sdist_is_refused(cache: Path, sdist: Path) -> None:
    folder = install(sdist)
    (folder.parent / SDIST).write_bytes(b"another")
    with pytest.raises(UserError, match="its sha256 is"):
        load_templates("reviews")
    (folder.parent / SDIST).unlink()
    with pytest.raises(UserError, match=r"cannot be compared.*prompts install"):
        load_templates("reviews")


def test_what_a_killed_install_left_is_removed(cache: Path, pip: list[list[str]]) -> None:
    code = (
        "import os, signal\n"
        "from t0train.core.files import work_folder\n"
        "from t0train.prompts.install import collection_folder\n"
        "collection_folder().parent.mkdir(parents=True)\n"
        "place = work_folder(collection_folder(), '.tmp')\n"
        "(place / 'half').write_text('a download')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert spawn(code).wait() == -signal.SIGKILL
    assert any(name.endswith("half") for name in files(cache))
    install()
    assert files(cache) == WHOLE


def test_a_killed_download_leaves_its_files_where_they_are_found(cache: Path, sdist: Path) -> None:
    """The process is killed while pip runs, as its real code has it; the next start removes what is left."""
    code = (
        "import os, signal, subprocess\n"
        "from pathlib import Path\n"
        "from t0train.prompts import install\n"
        "def run(command, **options):\n"
        "    Path(command[command.index('--dest') + 1], 'half').write_text('a download')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "subprocess.run = run\n"
        "install()\n"
    )
    assert spawn(code).wait() == -signal.SIGKILL
    assert any(name.endswith("half") for name in files(cache))
    install(sdist)
    assert files(cache) == WHOLE


def test_two_installs_at_once_end_well(cache: Path, sdist: Path) -> None:
    """The first holds the lock for a second, so that the second has to wait; it says for whom."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "module = __import__('t0train.prompts.install', fromlist=['install'])\n"
        f"module.SDIST_SHA256 = {module.SDIST_SHA256!r}\n"
        "unpack = module._unpack\n"
        "def slow(*arguments):\n"
        "    print('unpacking', flush=True)\n"
        "    time.sleep(1)\n"
        "    unpack(*arguments)\n"
        "module._unpack = slow\n"
        f"print(module.install(Path({str(sdist)!r})))\n"
    )
    processes = [spawn(code) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert sum(output.count("unpacking") for output, _ in results) == 1
    assert sum("installing promptsource's templates" in errors for _, errors in results) == 1
    assert files(cache) == WHOLE


def spawn(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_another_file_is_refused_and_nothing_is_left(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / SDIST
    other.write_bytes(b"not the sdist")
    with pytest.raises(UserError, match=r"sha256 is [0-9a-f]{64}, expected f106c889"):
        install(other)
    assert not cache.exists()


def test_a_missing_file_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tar\.gz"):
        install(tmp_path / "nowhere.tar.gz")


def test_without_a_network_the_message_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: Could not find a version\nERROR: No matching")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=r"No matching(.|\n)*prompts install --from"):
        install()
    assert not cache.exists()
