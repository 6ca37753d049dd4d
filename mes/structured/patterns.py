"""Patterns: regular expressions that are judged in linear time, whatever the text."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|\{(?P<least>\d{1,6})(?P<comma>,(?P<most>\d{0,6}))?\}|.",
    re.DOTALL,
)
# The compiled size of what matches many characters, in literals. Measured with the Rust engine:
# a literal takes 0.2 us to compile, `.` about 5 us and `\p{L}` about 300 us.
_ANY = 25
_PROPERTY = 1_600


def weight(pattern: str) -> int:
    """About how large the pattern becomes when its counted repetitions are written out."""
    sums, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            sums.append(0)
            last = 0
        elif text == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif token["least"] is not None:
            more = last * (max(int(token["most"] or 0), int(token["least"])) - 1)
            sums[-1] += max(more, 0)
            last += max(more, 0)
        else:
            last = _weight_of(text)
            sums[-1] += last
    return sum(sums)


def _weight_of(atom: str) -> int:
    if "\\p" in atom or "\\P" in atom:
        return _PROPERTY
    if atom == "." or atom.startswith("[^") or atom in ("\\D", "\\W", "\\S"):
        return _ANY
    return 1


# Whatever opens a group or counts is left as it is; all else matches a character, or a border.
_PIECE = re.compile(
    r"(?P<kept>\(\?(?:<?[=!]|:)|\{\d+(?:,\d*)?\}|[()|*+?^$])"
    r"|(?P<border>\\[bB])|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.",
    re.DOTALL,
)
_EMPTY = re.compile(
    r"\((?:\?:)?\^*\)|\(\?<?[=!][^)]*\)|\((?:\?:)?(?:a(?:[*?]|\{0[^}]*\}))+\)(?=[*+{])|\$"
)
_REPEATS_NOTHING = re.compile(r"(?:^|\^|\||\((?!\?))[*+?{]|[*+}][*+{]")


def repeats_nothing(pattern: str) -> bool:
    """Is something repeated that may match no character, or that is repeated already?

    It leads llama.cpp's grammar in circles.
    """
    shape = "".join(
        piece["kept"] or ("^" if piece["border"] else "a") for piece in _PIECE.finditer(pattern)
    )
    return bool(_REPEATS_NOTHING.search(_EMPTY.sub("^", shape)))
