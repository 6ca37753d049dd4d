"""Tools: the client's choice among them, and the tools that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NONE, AUTO, REQUIRED = "none", "auto", "required"

Tool = Mapping[str, Any]
"""A tool as clients and runtimes write it: `{"type": "function", "function": {...}}`."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the model may (`auto`), must not (`none`) or must (`required`) call a tool.

    If there are `names`, only the functions with these names may be called.
    """

    kind: str = AUTO
    names: tuple[str, ...] = ()

    def select(self, tools: Sequence[Tool]) -> dict[int, Tool]:
        """Return the tools that may be called, by their index in `tools`.

        A tool that is listed twice is returned once.
        """
        if self.kind == NONE:
            return {}
        first = {function_name(each): n for n, each in reversed(list(enumerate(tools)))}
        allowed = self.names or first
        return {n: tools[n] for name, n in sorted(first.items(), key=_by_index) if name in allowed}


def _by_index(item: tuple[str, int]) -> int:
    return item[1]


MODEL_CHOOSES = ToolChoice()


def function_name(tool: Tool) -> str:
    """Return the name of the tool's function."""
    return str(tool["function"]["name"])
