"""The chat template that a model is run with."""

from __future__ import annotations

import re

from .gguf import Header

# ChatML templates often open with a system message of their own when the caller sent none, so the
# model answers to words that nobody wrote. Ollama runs these files with plain ChatML.
UNASKED_SYSTEM_MESSAGE = re.compile(
    r"{%-? *if loop\.first and messages\[0\]\['role'\] != 'system' *-?%}.*?{%-? *endif *-?%}", re.S
)


def chat_template(header: Header) -> str:
    """The file's own, without a system message that the caller did not send; "" if it has none"""
    return UNASKED_SYSTEM_MESSAGE.sub("", header.chat_template)
