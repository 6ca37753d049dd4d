"""Shared files: always whole, changed by one process at a time, readable with cat."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from mes.scheduling.serialization import EMPTY, NOTHING, Entry, image
from mes.scheduling.shared_file import Damaged, Handle
from mes.scheduling.shared_resources import SharedFlag, open_shared_file

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def file(tmp_path):
    with closing(open_shared_file(tmp_path / "shared.json", 100)) as file:
        yield file


@pytest.fixture
def handle(file):
    with closing(Handle(file)) as handle:
        handle.read()
        yield handle


@pytest.fixture
def other(file):
    with closing(Handle(file)) as other:
        other.read()
        yield other


def count(file, times):
    with closing(Handle(file)) as handle:
        for _ in range(times):
            with handle:
                number = json.loads(handle.read_locked().content) or 0
                handle.write(b"%d" % (number + 1))


def test_a_new_file_is_empty(handle):
    assert handle.read() == Entry(0, EMPTY)


def test_a_document_that_one_handle_writes_all_others_read(handle, other):
    handle.write(b'"long"' + b" " * 3000)
    last = handle.write(b'"short"')
    assert other.read() == last == Entry(2, b'"short"')


def test_no_update_is_lost_among_many_processes(file, handle):
    workers = [FORK.Process(target=count, args=(file, 1000)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert handle.read().content == b"6000"


def count_once(file, both_have_read):
    with closing(Handle(file)) as handle, handle:
        number = json.loads(handle.read_locked().content) or 0
        both_have_read.wait(20)
        handle.write(b"%d" % (number + 1))


def test_with_a_lock_that_does_nothing_updates_are_lost(file, handle, monkeypatch):
    """The test above can fail: here each of two processes writes after both have read."""
    monkeypatch.setattr(Handle, "lock", lambda _: None)
    both_have_read = FORK.Barrier(2)
    workers = [FORK.Process(target=count_once, args=(file, both_have_read)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert handle.read().content == b"1"


def test_a_reader_never_sees_half_a_document(file, handle):
    def write():
        with closing(Handle(file)) as writer:
            writer.read()
            for n in range(20_000):
                writer.write(b"%d" % (n % 10) * (n * 37 % 9000 + 1))

    handle.write(b"0")
    writer = FORK.Process(target=write)
    writer.start()
    while writer.is_alive():
        assert len(set(handle.read().content)) == 1
    writer.join()
    assert writer.exitcode == 0
    assert handle.read().sequence > 20_000


def test_a_reader_that_was_overtaken_reads_again(handle, other, monkeypatch):
    take, overtaken = os.pread, []

    def after_two_writes(fd, size, at):
        if at and not overtaken:
            overtaken.append(fd)
            other.write(b"2")
            other.write(b"3" * 5000)
        return take(fd, size, at)

    other.write(b"1")
    monkeypatch.setattr(os, "pread", after_two_writes)
    assert handle.read() == Entry(3, b"3" * 5000)


def test_reading_takes_no_lock(handle, other, monkeypatch):
    with other:
        other.write(b"1")
        assert not handle.lock_within(0)
        monkeypatch.setattr("fcntl.flock", None)
        assert handle.read().content == b"1"
        monkeypatch.undo()


def locks(path):
    """Return the processes that hold a lock on the file, as /proc/locks shows them."""
    found = os.stat(path)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(line[4]) for line in lines if line[1] == "FLOCK" and line[5] == device]


def test_the_kernel_shows_the_process_that_holds_the_lock(file, handle):
    assert locks(file.path) == []
    with handle:
        assert locks(file.path) == [os.getpid()]
    assert locks(file.path) == []


def test_the_lock_of_a_killed_process_is_free(file, handle):
    held = FORK.Event()

    def hold():
        with Handle(file):
            held.set()
            signal.pause()

    holder = FORK.Process(target=hold)
    holder.start()
    held.wait(10)
    assert not handle.lock_within(0)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert handle.lock_within(0)


def test_a_person_reads_it_with_cat(file, handle):
    handle.write(b'{"permits":{}}')
    handle.write(b'{"permits":{"a":1}}')
    shown = subprocess.run(["cat", file.path], capture_output=True, check=True).stdout
    lines = [json.loads(line) for line in shown.replace(b"\0", b"").splitlines()]
    assert max(lines, key=lambda line: line["sequence"])["content"] == {"permits": {"a": 1}}
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_shorter_document_leaves_nothing_of_a_longer_one(file, handle, other):
    for content in (b"1" * 3000, b"2" * 3000, b"3"):
        handle.write(content)
    other.read()
    other.write(b"4")
    assert sum(map(len, file.path.read_bytes().replace(b"\0", b"").splitlines())) < 250


# A killed writer


@pytest.mark.parametrize("length", [1, 40, 90, 4000, 9000])
def test_a_writer_that_is_killed_in_the_middle_has_changed_nothing(
    handle, other, monkeypatch, length
):
    with handle:
        handle.write(b"1" * 10_000)
        handle.write(b"2" * 10_000)
    put = os.pwrite

    def killed(fd, content, at):
        put(fd, content[:length], at)
        raise SystemExit

    monkeypatch.setattr(os, "pwrite", killed)
    with handle, pytest.raises(SystemExit):
        handle.write(b"3" * 10_000)
    monkeypatch.undo()
    assert other.read().content == b"2" * 10_000


def test_a_process_killed_between_two_writes_has_changed_nothing_but_by_the_first(file, handle):
    written = FORK.Event()

    def write():
        with closing(Handle(file)) as writer, writer:
            writer.read_locked()
            writer.write(b"1")
            written.set()
            signal.pause()

    writer = FORK.Process(target=write)
    writer.start()
    written.wait(10)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with handle:
        assert handle.read_locked().content == b"1"


def test_a_process_killed_while_it_makes_room_leaves_the_file_whole(file, handle, monkeypatch):
    for last in (1, 2):  # in either half
        with handle:
            handle.read_locked()
            handle.write(b"%d" % last)
        size = os.fstat(file.fd).st_size
        for calls in range(3):
            steps = {"posix_fallocate": os.posix_fallocate, "pwrite": os.pwrite}
            left = [calls]

            def step(name, *args, steps=steps, left=left):
                if not left[0]:
                    raise SystemExit
                left[0] -= 1
                return steps[name](*args)

            for name in steps:
                monkeypatch.setattr(os, name, lambda *args, name=name: step(name, *args))
            with closing(Handle(file)) as killed, killed:
                killed.read_locked()
                with pytest.raises(SystemExit):
                    killed.write(b"9" * 2 * size)
            monkeypatch.undo()
            with handle:
                assert handle.read_locked().content == b"%d" % last


# Room


def test_the_room_is_there_before_it_is_needed(tmp_path):
    with closing(open_shared_file(tmp_path / "large.json", 100_000)) as file:
        assert os.fstat(file.fd).st_blocks * 512 >= 2 * 100_000


def test_a_document_that_needs_more_room_gets_it_and_all_see_it(handle, other):
    for size in (10, 5_000, 70_000, 20, 300_000):
        last = handle.write(b"7" * size)
        assert other.read() == last
        last = other.write(b"8")
        with handle:
            assert handle.read_locked() == last


def test_on_a_full_disk_a_document_that_needs_more_room_is_refused_and_nothing_changes(
    handle, other, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handle.write(b"1")
    monkeypatch.setattr(os, "posix_fallocate", full)
    for n in range(2, 6):
        with handle:
            handle.read_locked()
            with pytest.raises(OSError, match="No space left"):
                handle.write(b"9" * 5000)
        with other:
            assert other.read_locked().content == b"%d" % (n - 1)
            other.write(b"%d" % n)


# Damage


def damage(file, at, content=b"garbage"):
    os.pwrite(file.fd, content, at)


def half_bytes(file):
    return os.fstat(file.fd).st_size // 2


@pytest.mark.parametrize("at", [0, 20, 45, 70, 90], ids=lambda at: f"byte {at}")
@pytest.mark.parametrize("newest", [1, 2])
def test_of_a_file_with_one_damaged_half_the_other_counts(file, handle, newest, at):
    for n in range(1, newest + 1):
        handle.write(b'"document %d"' % n)
    damage(file, newest % 2 * half_bytes(file) + at)
    with closing(Handle(file)) as fresh:
        expected = EMPTY if newest == 1 else b'"document 1"'
        assert fresh.read().content == expected
        with fresh, pytest.raises(Damaged):
            fresh.verify()
    assert handle.read().content == b'"document %d"' % newest, "it keeps the newer document"


ALL = {
    "truncated": lambda file: os.truncate(file.path, 0),
    "shortened": lambda file: os.truncate(file.path, 50),
    "garbage": lambda file: file.path.write_bytes(b"\xff\x00" * 9000),
    "another document": lambda file: file.path.write_bytes(b'{"permits":{}}\n'),
    "zeros": lambda file: damage(file, 0, bytes(2 * half_bytes(file))),
    "much": lambda file: file.path.write_bytes(b"7" * 1_000_000),
}


@pytest.mark.parametrize("harm", ALL)
def test_of_a_file_that_is_all_garbage_the_last_known_document_counts(file, handle, other, harm):
    known = handle.write(b'"known"')
    ALL[harm](file)
    assert handle.read() == known
    assert handle.looks_damaged()
    with handle:
        with pytest.raises(Damaged):
            handle.verify()
        handle.repair(known)
    assert other.read().content == b'"known"'
    assert not other.looks_damaged()
    with other:
        last = other.write(b'"next"')
    assert handle.read() == last
    assert file.path.read_bytes().replace(b"\0", b"").count(b"\n") == 2


@pytest.mark.parametrize("documents", [1, 2])
def test_the_last_known_document_is_read_from_a_file_that_was_cut_short(file, handle, documents):
    for _ in range(documents):
        known = handle.write(b'"known"' + b" " * 9000)
    os.truncate(file.path, 0)
    assert handle.looks_damaged()
    assert handle.read() == known


@pytest.mark.parametrize("harm", ALL)
def test_the_newest_document_that_is_offered_counts(file, handle, other, harm):
    older, newer = handle.write(b'"older"'), handle.write(b'"newer"')
    ALL[harm](file)
    with closing(Handle(file)) as fresh, fresh:
        assert fresh.read() is NOTHING
        for offered in (older, newer, older):
            fresh.offer(offered)
        fresh.repair(NOTHING)
        assert fresh.entry.content == b'"newer"'
        assert fresh.entry.sequence > newer.sequence + 1000
    assert other.read().content == b'"newer"'


def test_a_file_that_is_open_outlives_its_name(file, handle, other):
    handle.write(b"1")
    assert file.is_named
    file.path.unlink()
    assert not file.is_named
    handle.write(b"2")
    with closing(Handle(file)) as later:
        assert later.read() == other.read() == Entry(2, b"2")


# Beginning


def test_a_file_of_an_earlier_process_is_used(tmp_path):
    (tmp_path / "left.json").write_bytes(image(b'"left"'))
    for content_bytes in (10, 50_000):
        with (
            closing(open_shared_file(tmp_path / "left.json", content_bytes)) as file,
            closing(Handle(file)) as handle,
        ):
            assert handle.read().content == b'"left"'
            assert half_bytes(file) > content_bytes


@pytest.mark.parametrize("content", [b"x", b"\xff" * 20_000, image(b'"refused"')])
def test_an_unusable_file_is_left_to_its_users_and_another_takes_its_name(
    tmp_path, content, caplog
):
    def check(found):
        raise ValueError(f"unusable: {found!r}")

    path = tmp_path / "used.json"
    path.write_bytes(content)
    before = os.stat(path).st_ino
    with path.open("rb") as used, closing(open_shared_file(path, 10, check)) as file:
        assert os.stat(path).st_ino != before
        assert used.read() == content
        with closing(Handle(file)) as handle:
            assert handle.read() == Entry(0, EMPTY)
    assert [record.message for record in caplog.records] == ["registry_unusable"]


def test_a_flag_is_seen_by_a_process_that_was_forked_before_it_was_set():
    flag = SharedFlag()
    go, seen = FORK.Event(), FORK.Value("b", 0)

    def look():
        go.wait(10)
        seen.value = bool(flag)

    child = FORK.Process(target=look)
    child.start()
    assert not flag
    flag.set()
    go.set()
    child.join()
    assert seen.value
