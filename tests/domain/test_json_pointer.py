"""JSON pointers follow RFC 6901."""

from __future__ import annotations

import pytest

from mes.domain.json_pointer import json_pointer, pointer_steps


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ([], ""),
        (["messages", 0, "content"], "/messages/0/content"),
        (["a/b"], "/a~1b"),
        (["m~n"], "/m~0n"),
        (["~1"], "/~01"),
        ([""], "/"),
    ],
)
def test_a_path_and_its_pointer_are_converted_into_each_other(path, pointer):
    assert json_pointer(path) == pointer
    assert pointer_steps(pointer) == list(map(str, path))
