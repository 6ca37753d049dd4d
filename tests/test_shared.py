"""Memory that processes share: whole at any time, and changed by one at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import closing

import pytest

from mes.shared import Document, Mark, Memory

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def memory():
    with closing(Memory("test")) as memory:
        yield memory


def count(memory, times):
    with closing(Document(memory)) as document:
        for _ in range(times):
            with document:
                document.write(b"%d" % (int(document.read()[1] or 0) + 1))


def test_nothing_is_in_it_before_the_first_write(memory):
    with closing(Document(memory)) as document:
        assert (document.version(), document.read()) == (0, (0, b""))


def test_what_one_writes_all_read(memory):
    with closing(Document(memory)) as one, closing(Document(memory)) as other:
        versions = [one.write(b"long" * 10_000), one.write(b"short")]
        assert other.read() == (versions[1], b"short")
        assert len({0, *versions}) == 3


def test_no_update_is_lost_among_many_processes(memory):
    workers = [FORK.Process(target=count, args=(memory, 1000)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with closing(Document(memory)) as document:
        assert document.read()[1] == b"6000"


def test_a_reader_needs_no_lock_and_never_sees_half_a_document(memory):
    def write():
        with closing(Document(memory)) as document:
            for n in range(20_000):
                document.write(bytes([n % 251]) * (n * 37 % 9000 + 1))

    writer = FORK.Process(target=write)
    writer.start()
    with closing(Document(memory)) as document:
        while writer.is_alive():
            assert len(set(document.read()[1])) <= 1
    writer.join()


def test_a_reader_that_was_overtaken_reads_again(memory, monkeypatch):
    with closing(Document(memory)) as document, closing(Document(memory)) as other:
        document.write(b"first")
        take, overtaken = os.pread, []

        def after_two_writes(fd, size, at):
            if at and not overtaken:
                overtaken.append(fd)
                for content in (b"second", b"third, which is longer"):
                    last = other.write(content)
                overtaken.append(last)
            return take(fd, size, at)

        monkeypatch.setattr(os, "pread", after_two_writes)
        assert document.read() == (overtaken[1], b"third, which is longer")


def test_the_lock_of_a_killed_process_is_free(memory):
    held = FORK.Event()

    def hold():
        with Document(memory):
            held.set()
            signal.pause()

    holder = FORK.Process(target=hold)
    holder.start()
    held.wait(10)
    with closing(Document(memory)) as document:
        assert not document.lock_if_free()
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        assert document.lock_if_free()


def test_who_is_killed_while_it_writes_has_changed_nothing(memory, monkeypatch):
    with closing(Document(memory)) as document:
        document.write(b"whole")
        put = os.pwrite

        def killed_after_the_first(*args):
            put(*args)
            raise SystemExit

        monkeypatch.setattr(os, "pwrite", killed_after_the_first)
        with pytest.raises(SystemExit):
            document.write(b"the beginning of something longer")
        monkeypatch.undo()
        assert document.read()[1] == b"whole"
        assert document.write(b"next") > 1
        assert document.read()[1] == b"next"


def test_a_mark_is_seen_by_who_was_forked_before_it_was_set():
    mark = Mark()
    go, seen = FORK.Event(), FORK.Value("b", 0)

    def look():
        go.wait(10)
        seen.value = bool(mark)

    child = FORK.Process(target=look)
    child.start()
    assert not mark
    mark.set()
    go.set()
    child.join()
    assert seen.value
