"""Regular expressions: their compiled size, and constructs that llama.cpp cannot process."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|\{(?P<least>\d{1,6})(?P<comma>,(?P<most>\d{0,6}))?\}|.",
    re.DOTALL,
)
# The compiled size of an atom that matches many characters, in literals. Measured with the Rust
# engine: a literal takes 0.2 us to compile, `.` about 5 us and `\p{L}` about 300 us.
_ANY = 25
_PROPERTY = 1_600


def weight(pattern: str) -> int:
    """Return the approximate compiled size of the pattern, in literals.

    The compiler expands counted repetitions, so `(a{100}){100}` weighs 10,000.
    """
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
            last = _weight_of_atom(text)
            sums[-1] += last
    return sum(sums)


def _weight_of_atom(atom: str) -> int:
    if "\\p" in atom or "\\P" in atom:
        return _PROPERTY
    if atom == "." or atom.startswith("[^") or atom in ("\\D", "\\W", "\\S"):
        return _ANY
    return 1


# Groups, quantifiers and anchors are kept. Any other piece matches a character or a word boundary.
_PIECE = re.compile(
    r"(?P<kept>\(\?(?:<?[=!]|:)|\{\d+(?:,\d*)?\}|[()|*+?^$])"
    r"|(?P<boundary>\\[bB])|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.",
    re.DOTALL,
)
_EMPTY = re.compile(
    r"\((?:\?:)?\^*\)|\(\?<?[=!][^)]*\)|\((?:\?:)?(?:a(?:[*?]|\{0[^}]*\}))+\)(?=[*+{])|\$"
)
_REPEATS_EMPTY = re.compile(r"(?:^|\^|\||\((?!\?))[*+?{]|[*+}][*+{]")


def repeats_empty_match(pattern: str) -> bool:
    """Return whether a repeated part can match no character, or is itself a repetition.

    Such a pattern sends llama.cpp's grammar into an endless loop.
    """
    shape = "".join(
        piece["kept"] or ("^" if piece["boundary"] else "a") for piece in _PIECE.finditer(pattern)
    )
    return bool(_REPEATS_EMPTY.search(_EMPTY.sub("^", shape)))
