"""Every error that MES raises, as a tree. Errors know no HTTP; `mes/api/problems.py` maps them.

MesError
├── RequestRejected            the client can correct the request
│   ├── MalformedRequest       the body is not JSON
│   ├── RequestInvalid         the body is JSON, but a field is wrong
│   │   ├── SchemaInvalid      json_schema is not a JSON Schema
│   │   ├── SchemaUnsafe       json_schema takes too long to check or refers elsewhere
│   │   ├── NotCapable         the model lacks a capability that the request needs
│   │   └── PromptTooLong      the prompt does not fit into the model's context
│   ├── Unauthorized           the API key is missing or unknown
│   ├── Forbidden              the API key lacks the scope
│   ├── RateLimited            too many wrong API keys came from one address
│   ├── ModelNotFound          the model is not in the catalog, or is disabled
│   ├── ModelNotPulled         the model is in the catalog, but not on the runtime's disk
│   ├── NotWaiting             the request whose queue position was asked for is not in the queue
│   └── ModelBusy              the model is still in use when the time for its unload is over
├── ClientDisconnected         the client closed the connection before the answer was complete
│   └── ClientTooSlow          the client keeps the connection, but does not read the stream
├── TryLater                   the request is valid, but cannot be served now (503)
│   ├── QueueFull              the model's queue has no place left
│   ├── QueueTimeout           no permit was granted within QUEUE_TIMEOUT
│   ├── RuntimeUnavailable     the runtime cannot be reached
│   ├── ModelUnavailable       the model failed to load, and its cooldown has not passed
│   ├── StateUnavailable       the state that the workers share cannot be changed
│   │   ├── StateDirFull       STATE_DIR has no room for it
│   │   └── StateLocked        another process holds the lock on it for too long
│   └── ShuttingDown           the service is stopping
├── RuntimeFault               the runtime answered, but not with a result
│   ├── RuntimeReplyInvalid    the reply does not follow the runtime's protocol
│   ├── GenerationAborted      the generation ended without its final message
│   ├── PullFailed             the model could not be downloaded
│   ├── SchemaRefused          the runtime cannot decode under this schema (internal: the next
│   │                          decoding mode is tried)
│   └── LoadFailed             the model could not be loaded (internal: becomes ModelUnavailable)
└── TimedOut                   the runtime did not finish before its deadline
    ├── GenerationTimeout      a generation or an embedding
    └── LoadTimeout            a load
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a request or a file: a JSON pointer to it, the problem and the remedy."""

    pointer: str
    detail: str


class MesError(Exception):
    """The base of all errors.

    `code` is stable, for programs; `detail` is for people and may change. `mistakes` are the
    single mistakes in the request; `retry_after` is the time in seconds after which the client
    should try again.
    """

    code: ClassVar[str] = "internal_error"
    retry_after: float | None = None

    def __init__(
        self,
        detail: str,
        *,
        mistakes: tuple[Mistake, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.mistakes = mistakes
        if retry_after is not None:
            self.retry_after = retry_after


class RequestRejected(MesError):
    pass


class MalformedRequest(RequestRejected):
    code = "malformed_request"


class RequestInvalid(RequestRejected):
    code = "request_invalid"


class SchemaInvalid(RequestInvalid):
    code = "schema_invalid"


class SchemaUnsafe(RequestInvalid):
    code = "schema_unsafe"


class NotCapable(RequestInvalid):
    """`capability` is the name of the missing capability."""

    capability: str = ""


class PromptTooLong(RequestInvalid):
    code = "prompt_too_long"


class Unauthorized(RequestRejected):
    code = "unauthorized"


class Forbidden(RequestRejected):
    code = "forbidden"


class RateLimited(RequestRejected):
    code = "rate_limited"


class ModelNotFound(RequestRejected):
    code = "model_not_found"


class ModelNotPulled(RequestRejected):
    code = "model_not_pulled"


class NotWaiting(RequestRejected):
    code = "not_waiting"


class ModelBusy(RequestRejected):
    code = "model_busy"


class ClientDisconnected(MesError):
    code = "client_closed_request"


class ClientTooSlow(ClientDisconnected):
    code = "client_too_slow"


class TryLater(MesError):
    retry_after = 1.0


class QueueFull(TryLater):
    code = "queue_full"


class QueueTimeout(TryLater):
    code = "queue_timeout"


class RuntimeUnavailable(TryLater):
    code = "runtime_unavailable"
    retry_after = 2.0


class ModelUnavailable(TryLater):
    code = "model_unavailable"


class StateUnavailable(TryLater):
    retry_after = 5.0


class StateDirFull(StateUnavailable):
    code = "state_dir_full"


class StateLocked(StateUnavailable):
    code = "state_locked"


class ShuttingDown(TryLater):
    code = "shutting_down"
    retry_after = 5.0


class RuntimeFault(MesError):
    code = "runtime_reply_invalid"


class RuntimeReplyInvalid(RuntimeFault):
    pass


class GenerationAborted(RuntimeFault):
    code = "generation_aborted"


class PullFailed(RuntimeFault):
    code = "pull_failed"


class SchemaRefused(RuntimeFault):
    pass


class ThinkLevelRefused(RuntimeFault):
    pass


class LoadFailed(RuntimeFault):
    pass


class TimedOut(MesError):
    pass


class GenerationTimeout(TimedOut):
    """`generated_tokens` is the number of pieces of text that arrived before the deadline."""

    code = "generation_timeout"
    generated_tokens: int = 0


class LoadTimeout(TimedOut):
    code = "load_timeout"


def error_for_code(code: str) -> type[MesError]:
    """Return the class of the error with this code; MesError where no class has it."""
    pending: list[type[MesError]] = [MesError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return MesError


def format_number(number: float) -> str:
    """Return a number as error details contain it: without an exponent, and 30.0 as 30."""
    if isinstance(number, int) or number.is_integer():
        return str(int(number))
    return format(Decimal(str(number)), "f")
