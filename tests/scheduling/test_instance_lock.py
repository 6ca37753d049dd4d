"""The instance lock: a directory that cannot be locked is refused with a reason."""

from __future__ import annotations

import errno
import fcntl

import pytest

from mes.scheduling.file_lock import InstanceLock, StateDirUnavailable


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_directory_without_locks_is_refused_with_the_reason(tmp_path, monkeypatch, error):
    def refuse(*_: object) -> None:
        raise OSError(error, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(
        StateDirUnavailable,
        match=f"STATE_DIR {tmp_path} .*no locks here.*set STATE_DIR to a folder",
    ):
        InstanceLock(tmp_path, master=1, address="127.0.0.1:8001").acquire()
