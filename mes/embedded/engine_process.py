"""Program of an engine process: runs llama.cpp's HTTP server with one model until stdin closes.

It reads one line of JSON, the order to load a model, and writes one line of JSON:
{"address": url} or {"error": message}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# Of 1,000; the process of MES has 0.
OOM_SCORE = 500


def main() -> None:
    # Output that the engine prints to stdout goes to stderr, apart from the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.buffer.readline())
    be_first_out_of_memory()
    try:
        server = start(order)
        limit_memory(order["request_memory_bytes"])
    except Exception as exc:
        print(json.dumps({"error": str(exc)}), file=answer, flush=True)
        os._exit(1)
    print(json.dumps({"address": server.listening_address}), file=answer, flush=True)
    sys.stdin.buffer.read()
    # The engine's own shutdown waits for its clients; there is nothing here to save.
    os._exit(0)


def be_first_out_of_memory() -> None:
    """Make the system end this process, which can be started again, before any other."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def limit_memory(more_bytes: int) -> None:
    """Limit the memory of this process to that of now and `more_bytes`; 0 for no limit.

    The loaded model has its memory already, with that of all contexts; the weights are mapped and
    do not count. An allocation over the limit ends the process.
    """
    if more_bytes:
        status = Path("/proc/self/status").read_text()
        kilobytes = int(status.partition("VmData:")[2].split()[0])
        limit = kilobytes * 1024 + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def start(order: dict[str, Any]) -> Any:
    """Return the engine's HTTP server once it has loaded the model and listens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["path"]
    params.api_keys = [order["key"]]
    params.n_parallel = order["slots"]
    # Each slot has cells of its own. In a shared pool, the place of a request's cells, and with it
    # the rounding of its sums, would depend on the requests before it.
    params.kv_unified = False
    params.n_ctx = order["context_length"] * order["slots"]
    params.kv_unified_per_slot = order["context_length"]
    params.n_batch = params.n_ubatch = order["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.embedding = order["embedding"]
    params.chat_template = order["chat_template"]
    # By default the engine caches up to 8 GiB of earlier prompts.
    params.cache_ram_mib = 0
    # The load must fail rather than get a smaller context than the order demands.
    params.fit_params = False
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
