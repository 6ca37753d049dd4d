"""Checks at the start that a library has the undocumented names that MES overrides or reads.

An upgrade of a library that renames one of them would not fail by itself: an override that is never
called loses its feature without an error. The service refuses to start instead.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Names = Mapping[str, tuple[str, ...]]
"""Names for each method, written "module:Class.method"."""


def require_interface(library: str, version: str, *, signatures: Names, uses: Names) -> None:
    """Raise SystemExit, with every difference, if the library is not the expected one.

    Args:
        library, version: for the message.
        signatures: the parameters of each method, without `self` or `cls`.
        uses: names that each method, or a function defined in it, refers to.
    """
    differences = [*_check(signatures, _other_parameters), *_check(uses, _unused)]
    if differences:
        raise SystemExit(
            f"MES does not start:\n{library} {version} is not the {library} that MES "
            f"extends: {'; '.join(differences)}. Install the version that setup.cfg names"
        )


def _check(
    expected: Names, find_difference: Callable[[Callable[..., Any], tuple[str, ...]], str]
) -> Iterator[str]:
    for name, names in expected.items():
        short_name = name.partition(":")[2]
        try:
            method = _resolve(name)
        except (ImportError, AttributeError):
            yield f"{short_name} is missing"
            continue
        if difference := find_difference(method, names):
            yield f"{short_name} {difference}"


def _resolve(name: str) -> Callable[..., Any]:
    """Return the function behind a method, a class method, a property or a decorator."""
    found = pkgutil.resolve_name(name)
    for attribute in ("__func__", "fget"):
        found = getattr(found, attribute, found)
    function: Callable[..., Any] = inspect.unwrap(found)
    return function


def _other_parameters(method: Callable[..., Any], expected: tuple[str, ...]) -> str:
    found = tuple(inspect.signature(method).parameters)[1:]
    return "" if found == expected else f"takes ({', '.join(found)}), not ({', '.join(expected)})"


def _unused(method: Callable[..., Any], expected: tuple[str, ...]) -> str:
    missing = sorted(set(expected) - _names_used(method))
    return f"no longer uses {', '.join(missing)}" if missing else ""


def _names_used(method: Callable[..., Any]) -> set[str]:
    codes, names = [method.__code__], set[str]()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if inspect.iscode(const)]
    return names
