"""Conversion of token ids to text."""

from __future__ import annotations

from mes.embedded.api_errors import BadRequest, EngineRefused
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.gguf import Header
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import StoredModel
from mes.embedded.request_parsing import DetokenizeRequest

# The engine reads an id as 32 bits: a larger one would be another token.
LARGEST_ID = 2**31 - 1


def detokenize(
    request: DetokenizeRequest, model: StoredModel, pool: ModelPool, client: ClientConnection
) -> str:
    """Return the text of the token ids; the names of control tokens are a part of it.

    A token at the start that only marks the beginning of the text is left out: the engine adds it
    again when it reads the text.

    Raise `BadRequest` for an id that is not in the vocabulary.
    """
    largest = max(request.tokens, default=0)
    if min(request.tokens, default=0) < 0 or largest > LARGEST_ID:
        raise BadRequest(f"token ids must be whole numbers from 0 to {LARGEST_ID}")
    with pool.engine(model, request.options, request.keep_alive, client) as engine:
        return _detokenize(without_begin_token(request.tokens, model.header), engine, client)


def _detokenize(tokens: list[int], engine: Engine, client: ClientConnection) -> str:
    try:
        return str(engine.request("/detokenize", {"tokens": tokens}, client)["content"])
    except EngineRefused as exc:
        # The engine checks the range of the vocabulary, and refuses for no other reason.
        raise BadRequest(f"token id {max(tokens)} is not in the vocabulary of the model") from exc


def without_begin_token(tokens: list[int], header: Header) -> list[int]:
    """Return the tokens without the one that the engine puts before each text."""
    return tokens[1:] if tokens[:1] == [header.begin_token] else tokens
