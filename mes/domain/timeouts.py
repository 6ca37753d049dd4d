"""The detail of a generation's timeout: the time, the setting and the progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mes.domain.models import ModelSpec
from mes.errors import GenerationTimeout, format_number


@contextmanager
def naming_timeout(
    operation: str,
    spec: ModelSpec,
    *,
    requested_seconds: float | None = None,
    max_tokens: int | None = None,
    attempt: int = 1,
    remedy: str = "set timeout in the request",
) -> Iterator[None]:
    """Raise the runtime's GenerationTimeout with the time, its setting and the progress.

    Args:
        operation: noun in the detail.
        requested_seconds: the timeout in the request; None if it has none.
        max_tokens: the limit of tokens; None if the operation generates none.
        attempt: the number of the attempt; all attempts of a request have one timeout.
        remedy: an alternative to another value of the setting.
    """
    try:
        yield
    except GenerationTimeout as exc:
        seconds = format_number(requested_seconds or spec.timeout_seconds)
        setting = "timeout of the request" if requested_seconds else spec.timeout_setting
        number = f" in attempt {attempt}" if attempt > 1 else ""
        detail = f"the {operation} did not end within {seconds} s ({setting}){number}"
        remedies = ["raise it", *([] if requested_seconds else [remedy])]
        if max_tokens is not None:
            detail += f": {_progress(exc.generated_tokens)}, of at most {max_tokens}"
            remedies.append("lower max_tokens")
        error = GenerationTimeout(f"{detail}; {', or '.join(remedies)}")
        error.generated_tokens = exc.generated_tokens
        raise error from exc


def _progress(tokens: int) -> str:
    return f"{tokens} tokens were generated" if tokens else "no token was generated"
