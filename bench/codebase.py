"""Counts of the code in `mes/`: files, names, lengths of functions, and words of its prose.

python -m bench.codebase           # the counts
python -m bench.codebase --words   # and the lines that hold a word to avoid
python -m bench.codebase --root ../other/checkout
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

WORDS = {
    "what/whatever": r"what(ever)?",
    "who/whoever": r"who(ever|m|se)?",
    "nobody/somebody/everybody": r"(no|some|every|any)(body)|no one",
    "tell/told": r"tells?|told|telling",
    "return(s)": r"returns?",
    "raise(s)": r"raises?",
}
AVOIDED = tuple(WORDS)[:4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--words", action="store_true", help="list the lines with such words")
    arguments = parser.parse_args()
    room = arguments.root / "mes"
    files = {path: path.read_text() for path in sorted(room.rglob("*.py"))}
    for line in (*_files(room, files), *_names(files), *_functions(files), *_words(files)):
        print(line)
    if arguments.words:
        print("\n".join(_avoided(files)))


def _files(room: Path, files: dict[Path, str]) -> Iterator[str]:
    longest = max(files, key=lambda path: files[path].count("\n"))
    yield f"files                      {len(files)}"
    yield f"files at the top of mes/   {sum(path.parent == room for path in files)}"
    yield f"lines                      {sum(text.count(chr(10)) for text in files.values())}"
    yield f"longest file               {files[longest].count(chr(10))}  {longest.name}"


def _names(files: dict[Path, str]) -> Iterator[str]:
    modules = Counter(path.stem for path in files if not path.stem.startswith("__"))
    classes = Counter(
        node.name
        for text in files.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and node.name != "Meta"
    )
    for kind, names in (("classes", classes), ("modules", modules)):
        twice = sorted(name for name, number in names.items() if number > 1)
        yield f"names of several {kind}   {len(twice)}  {' '.join(twice)}"


def _functions(files: dict[Path, str]) -> Iterator[str]:
    lengths = sorted(
        (_length(node), f"{path.name}:{node.name}")
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    )
    numbers = [length for length, _ in lengths]
    at_most = numbers[int(0.9 * len(numbers))]
    yield f"functions                  {len(numbers)}"
    yield f"lines of a function        median {statistics.median(numbers):g}, 9 in 10 {at_most}"
    yield f"longest function           {lengths[-1][0]}  {lengths[-1][1]}"


def _length(node: ast.FunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def _words(files: dict[Path, str]) -> Iterator[str]:
    prose = " ".join(text for path in files for _, text in _prose(files[path]))
    total = len(re.findall(r"[A-Za-z']+", prose))
    yield f"words of prose             {total}"
    for name, pattern in WORDS.items():
        number = len(re.findall(rf"\b(?:{pattern})\b", prose, re.IGNORECASE))
        yield f"in 1,000: {name:27}{1000 * number / total:.1f}"


def _avoided(files: dict[Path, str]) -> Iterator[str]:
    pattern = re.compile(rf"\b(?:{'|'.join(WORDS[name] for name in AVOIDED)})\b", re.IGNORECASE)
    for path, text in files.items():
        for line, prose in _prose(text):
            if pattern.search(prose):
                yield f"{path}:{line}: {' '.join(prose.split())}"


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a file, each with its line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


if __name__ == "__main__":
    main()
