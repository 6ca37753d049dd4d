"""Trying a grammar before it is used, and refusing the schemas that have ended an engine."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from functools import partial

from mes.embedded.api_errors import EngineDied, EngineRefused
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.engine_limits import EngineStalled, SilenceLimit, finish_without_client

log = logging.getLogger(__name__)

# A word that a model does not write unless the grammar demands it.
PROBE_WORD = "ZQXJ"

# A schema that ended an engine is refused at once for this time: clients send it again.
FORGET_SECONDS = 600.0
MOST_REMEMBERED = 1000


@dataclass(frozen=True)
class _Refusal:
    until: float
    reason: str


_refusals: dict[bytes, _Refusal] = {}


def verify(rule: str, engine: Engine, client: ClientConnection) -> None:
    """Try a grammar's rule in the engine, unless the engine has compiled it before.

    The engine only logs a failure and then answers without a grammar. Each new rule is therefore
    tried once behind a word that only a working grammar produces. The attempt ends also if the
    client leaves, so that its result is known when the client sends the schema again.

    Raises:
        EngineRefused: the engine cannot compile the rule, or it has ended an engine.
        EngineDied: the engine had ended before it compiled the rule.
        ClientLeft: the client has left.
    """
    if rule not in engine.verified_grammars:
        finish_without_client(partial(_compile, rule, engine), client)


def _compile(rule: str, engine: Engine) -> None:
    # One at a time, as in the engine, so that the end of an engine is due to a single rule.
    with engine.compilation:
        if rule in engine.verified_grammars:
            return
        _require_harmless(rule)
        if not engine.alive:
            raise engine.death()
        try:
            is_enforced = _is_enforced(rule, engine)
        except EngineStalled as exc:
            raise _remember(rule, _too_slow(engine)) from exc
        except EngineDied as exc:
            if engine.was_stopped:
                raise
            raise _remember(rule, _too_large(engine)) from exc
        if not is_enforced:
            raise _compile_error(engine)
        engine.verified_grammars.add(rule)


def _is_enforced(rule: str, engine: Engine) -> bool:
    grammar = f'%llguidance {{}}\nstart: "{PROBE_WORD}" rest\nrest: {rule}'
    body = {"prompt": "x", "n_predict": len(PROBE_WORD), "temperature": 0, "grammar": grammar}
    answer = engine.request("/completion", body, SilenceLimit(engine, hears_streams=True))
    return bool(answer["content"] == PROBE_WORD)


def _too_slow(engine: Engine) -> str:
    limit = engine.launch.compile_timeout_seconds
    log.warning("engine_ended reason=grammar_compilation limit_seconds=%g", limit)
    return f"it takes longer than {limit:g} s to compile; simplify it"


def _too_large(engine: Engine) -> str:
    limit = engine.launch.request_memory_bytes >> 20
    how = engine.exit_reason()
    engine.end_stalled()  # other requests are repeated
    log.warning("engine_ended reason=grammar_memory limit_mib=%d how=%r", limit, how)
    setting = f"EMBEDDED_REQUEST_MEMORY, {limit} MiB" if limit else "the machine has"
    return (
        f"the engine ended while it compiled it ({how}), as it does if that takes more memory than "
        f"{setting}; simplify it"
    )


def _digest(rule: str) -> bytes:
    return hashlib.sha256(rule.encode()).digest()


def _require_harmless(rule: str) -> None:
    """Raise `EngineRefused` for a rule that has ended an engine lately."""
    refusal = _refusals.get(_digest(rule))
    if refusal and time.monotonic() < refusal.until:
        raise refused_schema(refusal.reason)


def _remember(rule: str, reason: str) -> EngineRefused:
    """Refuse the rule from now on, and return the error for its present request."""
    if len(_refusals) >= MOST_REMEMBERED:
        _refusals.pop(next(iter(_refusals)))
    # Digests, because a rule may be large.
    _refusals[_digest(rule)] = _Refusal(time.monotonic() + FORGET_SECONDS, reason)
    return refused_schema(reason)


def _compile_error(engine: Engine) -> EngineRefused:
    marker = "failed to compile JSON schema: "
    reasons = [line.partition(marker)[2] for line in engine.log_lines(marker)] or ["unsupported"]
    return refused_schema(reasons[-1])


def refused_schema(reason: str) -> EngineRefused:
    """Return the error that the engine itself gives for a schema that it cannot compile."""
    message = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{reason}"
    error = {"code": 400, "message": message, "type": "invalid_request_error"}
    return EngineRefused(400, json.dumps({"error": error}))
