"""Server-sent events, as OpenAI frames its streams."""

from __future__ import annotations

from mes.api.openai.errors import translated
from mes.api.promises import EVENT_STREAM
from mes.api.streamed import Framing

DONE = "[DONE]"
EVENTS = Framing(EVENT_STREAM, b"data: ", b"\n\n", translated, end=f"data: {DONE}\n\n".encode())
