"""What can go wrong, drawn as a tree; it knows no HTTP.

MesError
├── RequestRejected            the caller can mend it
│   ├── MalformedRequest       not JSON at all
│   ├── RequestInvalid         JSON, but not what we ask for
│   │   ├── SchemaInvalid      json_schema is not a JSON Schema
│   │   ├── SchemaUnsafe       json_schema could hang or leak
│   │   ├── NotCapable         the model cannot do what it is asked for
│   │   └── PromptTooLong      the prompt does not fit the model's context
│   ├── Unauthorized           no key, or a wrong one
│   ├── Forbidden              a key whose scopes do not reach so far
│   ├── RateLimited            too many wrong keys from one address
│   ├── ModelNotFound          not configured, or disabled
│   ├── ModelNotPulled         configured, but absent from the runtime
│   ├── NotWaiting             asked for its place in the queue, has none
│   └── ModelBusy              asked to unload, did not drain in time
├── CallerGone                 nobody is left to read the answer
│   └── CallerTooSlow          somebody is, but does not read it
├── TryLater                   503: nothing is wrong with the request
│   ├── QueueFull
│   ├── QueueTimeout
│   ├── RuntimeUnavailable     the runtime cannot be reached
│   ├── ModelUnavailable       failed to load, cooling down
│   └── ShuttingDown
├── RuntimeFault               the runtime answered, but not with an answer
│   ├── RuntimeReplyInvalid    nonsense on the wire
│   ├── GenerationAborted      ended without saying that it was done
│   ├── PullFailed             the model could not be fetched
│   ├── SchemaRefused          cannot decode under this schema (never leaves the house)
│   └── LoadFailed             (never leaves the house: becomes ModelUnavailable)
└── TimedOut
    ├── GenerationTimeout
    └── LoadTimeout
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in what the caller sent: where (a JSON pointer) and what to do about it."""

    pointer: str
    detail: str


class MesError(Exception):
    """Anything MES says no to; `code` is stable, `detail` is for people."""

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
    pass


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


class LoadFailed(RuntimeFault):
    pass


class TimedOut(MesError):
    pass


class GenerationTimeout(TimedOut):
    code = "generation_timeout"


class LoadTimeout(TimedOut):
    code = "load_timeout"


def error_for_code(code: str) -> type[MesError]:
    """The error that carries this code."""
    pending: list[type[MesError]] = [MesError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return MesError
