"""Errors of the embedded runtime, each with the HTTP status that Ollama uses for it.

RuntimeFailure               500  base class; answered as {"error": message}
|- BadRequest                400  the request is invalid or asks for an unsupported feature
|- ForbiddenOrigin           403  the request comes from a web page of another site
|- UnknownModel              404  no file in the models folder has this name
|- TooSlow                   408  the request body did not arrive in time
|- TooLarge                  413  the request body exceeds the limit
|- Busy                      503  no room for another model in time
|- EngineRefused               *  an error answer of the engine, with its own status
|- EngineLoadFailed          500  the engine did not start with the model
|- EngineDied                500  the engine process ended during a request
|  `- EngineStopped           500  it was ended because another request took too long
|- BadOption, BadFormat      500  invalid `options` or `format` (options.py, grammar.py)
|- NotAnEmbeddingModel       501  /api/embed with a text generation model (embeddings.py)
|- DownloadFailed            500  a pull failed (download.py)
`- NotGGUF                   500  the file is not a GGUF file (gguf.py)
ClientLeft                     -  the client closed its connection; no answer is sent
"""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Base class of errors that end a request with `{"error": message}`.

    `facts` are integers for further fields of the answer, next to `error`.
    """

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


class TooSlow(RuntimeFailure):
    status = 408


class TooLarge(RuntimeFailure):
    status = 413


class Busy(RuntimeFailure):
    status = 503


class EngineLoadFailed(RuntimeFailure):
    pass


class EngineDied(RuntimeFailure):
    """The engine process ended; `how` is its signal or exit status, if known."""

    def __init__(self, how: str = "") -> None:
        reason = f" ({how})" if how else ""
        super().__init__(
            f"an error was encountered while running the model: unexpected EOF{reason}"
        )


class EngineStopped(EngineDied):
    """The engine process was ended because of another request."""


class EngineRefused(RuntimeFailure):
    """An error answer of the engine. Like Ollama, the message is the engine's JSON document."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status = status


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""
