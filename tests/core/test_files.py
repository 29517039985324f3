"""Atomic writes: whole or not at all, and refusals of the operating system in plain words."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from t0train.core import files
from t0train.core.errors import UserError
from t0train.core.files import (
    atomic_folder,
    cache_folder,
    make_folder,
    open_to_append,
    prove_renames,
    refuse_linked_folders,
    remove_leftovers,
    work_folder,
    write_atomic,
    write_json,
)


def test_writes_text_bytes_and_json(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "text", "ä\n")
    write_atomic(tmp_path / "bytes", b"\x00\xff")
    write_json(tmp_path / "json", {"ä": [1, None]})
    assert (tmp_path / "deep" / "text").read_bytes() == "ä\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert json.loads((tmp_path / "json").read_text()) == {"ä": [1, None]}


def test_written_files_and_folders_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", "x")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def run_killed(body: str, folder: Path) -> None:
    """Run `body` in a process that kills itself (SIGKILL: no clean-up runs) just before a rename."""
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from t0train.core.files import atomic_folder, write_atomic
        os.replace = os.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        folder = Path(sys.argv[1])
        {body}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_file_keeps_its_old_content_when_the_process_dies_while_writing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    run_killed('write_atomic(folder / "file", "new" * 100_000)', tmp_path)
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_keeps_its_old_content_when_the_process_dies_while_writing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part").write_text("old")
    run_killed('with atomic_folder(folder / "folder", ["part"]) as new: (new / "part").write_text("new")', tmp_path)
    assert (tmp_path / "folder" / "part").read_text() == "old"


def test_a_new_folder_does_not_exist_when_the_process_dies_while_writing(tmp_path: Path) -> None:
    run_killed('with atomic_folder(folder / "folder") as new: (new / "part").write_text("new")', tmp_path)
    assert not (tmp_path / "folder").exists()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with atomic_folder(tmp_path / "folder", ours=["one"]) as new:
            (new / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]  # nothing temporary is left behind


@pytest.mark.parametrize("ours", [[], ["manifest"]])
def test_what_others_wrote_is_never_replaced(tmp_path: Path, ours: list[str]) -> None:
    (tmp_path / "home" / "papers").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    before = sorted(tmp_path.rglob("*"))
    for name, words in (("home", "not empty \\(papers\\)"), ("file", "is a file"), ("link", "is a symbolic link")):
        with pytest.raises(UserError, match=words), atomic_folder(tmp_path / name, ours):
            pytest.fail("the work was begun")
    with pytest.raises(UserError, match="not empty"), atomic_folder(tmp_path / "new", ours):
        shutil.copytree(tmp_path / "home", tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "new", tmp_path / "new" / "papers"])
    assert (tmp_path / "file").read_text() == "mine"


def test_the_current_folder_can_be_filled_if_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as new:
        (new / "a").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "a").read_text() == "x"
    with pytest.raises(UserError, match="not empty"), atomic_folder(tmp_path):
        pass


def test_an_error_in_the_block_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "folder") as new:
        new.write_text("a folder is no file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(UserError, match="the disk is full"):
        write_atomic(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_reported() -> None:
    from t0train.core.events import EventLog

    with pytest.raises(UserError, match=r"cannot write to /dev/full: the disk is full"):
        EventLog(Path("/dev/full")).append("step", step=1)


FILL_THE_DISK = """
from pathlib import Path
from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, write_atomic

folder = Path({folder!r})
write_atomic(folder / "file", "old")
for _ in range(2):
    try:
        write_atomic(folder / "file", b"x" * 200_000)
    except UserError as error:
        print(error)
    try:
        with atomic_folder(folder / "store") as new:
            (new / "part").write_bytes(b"x" * 200_000)
    except UserError as error:
        print(error)
print([path.name for path in folder.iterdir()], (folder / "file").read_text())
"""


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """On a real file system of 64 KiB, mounted in a name space of the test's own."""
    disk, script = tmp_path / "disk", tmp_path / "script.py"
    disk.mkdir()
    script.write_text(FILL_THE_DISK.format(folder=str(disk)))
    mount = f"mount -t tmpfs -o size=64k none {disk} || exit 99; exec {sys.executable} {script}"
    try:
        done = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("may not mount a file system")
    assert done.returncode == 0, done.stderr
    *refusals, left = done.stdout.splitlines()
    assert len(refusals) == 4
    assert all("the disk is full; free some space" in line for line in refusals)
    assert left == "['file'] old"


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder without write permission, seen by a user who is not root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.rmdir()


def test_a_folder_without_write_permission(locked_folder: Path) -> None:
    with pytest.raises(UserError, match="permission was denied"):
        make_folder(locked_folder)
    with pytest.raises(UserError, match="permission was denied"):
        make_folder(locked_folder / "inside")
    with pytest.raises(UserError, match="permission was denied"):
        write_atomic(locked_folder / "file", "x")
    with pytest.raises(UserError, match="permission was denied"), atomic_folder(locked_folder / "new"):
        pass
    assert list(locked_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "file system is read-only"),
        (errno.EACCES, "permission was denied"),
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_refusals_become_advice(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=words):
        write_atomic(tmp_path / "file", "x")
    with pytest.raises(UserError, match=words):
        make_folder(tmp_path)
    with pytest.raises(UserError, match=words), atomic_folder(tmp_path / "folder"):
        pass


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file"):
            make_folder(path)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T0TRAIN_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("T0TRAIN_CACHE")
    assert cache_folder() == Path("/xdg/t0train")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/t0train")


def test_a_file_system_that_cannot_rename_folders_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(before: Path, after: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    def copy_half(before: Path, after: Path) -> None:  # as some mounts of object stores do
        Path(after).mkdir()

    prove_renames(tmp_path)
    for replace in (refuse, copy_half):
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(UserError, match="does not rename folders as a whole"):
            prove_renames(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    run_killed("write_atomic(folder / 'file', 'half')", tmp_path)
    (left,) = tmp_path.iterdir()
    run_killed("with atomic_folder(folder / 'folder') as new: (new / 'a').write_text('half')", tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_folder(tmp_path / "other"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_work_of_living_processes_and_other_machines_is_left_alone(tmp_path: Path) -> None:
    own = work_folder(tmp_path / "own", ".tmp")
    foreign = own.rename(tmp_path / own.name.replace(files._machine(), "0" * 8).replace("own", "foreign"))
    own = work_folder(tmp_path / "own", ".tmp")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {own.name, foreign.name}
    os.utime(foreign, (0, 0))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [own.name]
    remove_leftovers(tmp_path, exclusive=True)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_told_from_the_files_of_users(tmp_path: Path) -> None:
    names = [".config.tmp", ".a.b-1.c.tmp", "a.00000000-1.x.tmp", ".vimrc.old", ".x.12345678-abc.y.tmp"]
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path, exclusive=True)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_processes_that_replace_one_folder_at_once_all_end_well(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from t0train.core.files import atomic_folder
        for number in range(40):
            with atomic_folder(Path(sys.argv[1]) / "folder", ["a"]) as new:
                (new / "a").write_text(sys.argv[2])
                (new / "b").write_text(sys.argv[2])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(3)]
    for process in processes:
        assert process.wait(120) == 0, process.communicate()[1]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "folder" / "b").read_text()


def test_files_are_not_appended_to_through_links_or_pipes(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "pipe")
    for name, complaint in (("link", "symbolic link"), ("dangling", "symbolic link"), ("pipe", "no plain file")):
        with pytest.raises(UserError, match=f"cannot write to .*{name}: it is .*{complaint}"):
            open_to_append(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "new").exists()
    with open_to_append(tmp_path / "mine") as stream:
        stream.write(" too")
    assert (tmp_path / "mine").read_text() == "mine too"


def test_links_to_folders_are_refused_on_the_way_and_inside(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "eval" / "suite").mkdir(parents=True)
    (tmp_path / "named").symlink_to(tmp_path / "run")
    for root in (tmp_path / "run", tmp_path / "named"):
        refuse_linked_folders(root, root / "eval" / "suite")
        refuse_linked_folders(root, root / "not" / "there")
    link = tmp_path / "run" / "eval" / "suite" / "answers"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"eval/suite/answers is a symbolic link"):
        refuse_linked_folders(tmp_path / "run", tmp_path / "run" / "eval")
    (tmp_path / "run" / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"run/report is a symbolic link"):
        refuse_linked_folders(tmp_path / "run", tmp_path / "run" / "report" / "deep")
