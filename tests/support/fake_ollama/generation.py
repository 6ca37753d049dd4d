"""The reasoning in the stream of a generation."""

from __future__ import annotations

import time

from tests.support.fake_ollama.connection import Connection
from tests.support.fake_ollama.generate_request import GenerateRequest
from tests.support.fake_ollama.model import Model
from tests.support.fake_ollama.reasoning import Output, Times

PAUSES = ("ms_per_token", "first_token_ms")


def send_reasoning(
    output: Output,
    times: Times,
    model: Model,
    request: GenerateRequest,
    connection: Connection,
    ms_per_token: float,
    first_token_ms: float,
) -> Times:
    """Send the reasoning, and begin the second run if there is one.

    Return the times of the run whose tokens are counted.
    """
    for piece in output.reasoning:
        connection.wait(ms_per_token / 1000)
        connection.line(request.thinking_line(piece))
    if not output.first_run:
        return times
    connection.line(request.piece_line(""))
    run_started = time.monotonic_ns()
    connection.wait(first_token_ms / 1000)
    request.check_second_run(model, output)
    return times._replace(run_started=run_started, first_token=time.monotonic_ns())
