"""What can go wrong in this runtime, each with the HTTP status that Ollama has for it.

RuntimeFailure            500  anything below that is nobody's mistake
|- BadRequest             400  the request cannot be served as it stands
|- Forbidden              403  a web page of another origin asks
|- ModelNotFound          404
|- TooLarge               413  the body
|- Busy                   503  no room for one more model in time
|- EngineRefused           *   the engine answered an error of its own
|- LoadFailed             500  the engine did not come up with the model
`- EngineDied             500  the engine went away in the middle of an answer
CallerLeft                 -   nobody is left to read the answer
"""

from __future__ import annotations

import json


class RuntimeFailure(Exception):
    """Something that ends a request with {"error": "..."}, and the facts beside it"""

    status = 500

    def __init__(self, *words: str, **facts: int) -> None:
        super().__init__(*words)
        self.facts = facts


class BadRequest(RuntimeFailure):
    status = 400


class ForbiddenOrigin(RuntimeFailure):
    status = 403


class UnknownModel(RuntimeFailure):
    status = 404


class TooLarge(RuntimeFailure):
    status = 413


class Busy(RuntimeFailure):
    status = 503


class EngineLoadFailed(RuntimeFailure):
    pass


class EngineDied(RuntimeFailure):
    def __init__(self, how: str = "") -> None:
        reason = f" ({how})" if how else ""
        super().__init__(
            f"an error was encountered while running the model: unexpected EOF{reason}"
        )


class EngineRefused(RuntimeFailure):
    """The engine's own error: its status, and its JSON document as the text, as Ollama has it"""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status = status

    @property
    def message(self) -> str:
        """The sentence inside the engine's document"""
        try:
            return str(json.loads(str(self))["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return str(self)


class ClientLeft(Exception):
    """The client closed its connection while it waited"""
