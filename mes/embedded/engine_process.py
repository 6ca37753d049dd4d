"""The program of the process that holds one model: llama.cpp's HTTP server, until stdin closes.

It reads one line of JSON (the launch) and writes one: {"address": ...} or {"error": ...}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    # Whatever the engine prints must not be taken for the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    launch = json.loads(sys.stdin.buffer.readline())
    try:
        server = start(launch)
    except Exception as exc:
        print(json.dumps({"error": str(exc)}), file=answer, flush=True)
        os._exit(1)
    print(json.dumps({"address": server.listening_address}), file=answer, flush=True)
    sys.stdin.buffer.read()
    # The engine's own shutdown waits for its clients; there is nothing here to save.
    os._exit(0)


def start(launch: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = launch["path"]
    params.api_keys = [launch["key"]]
    params.n_parallel = launch["slots"]
    # One pool of cells, large enough that every slot can fill its own context.
    params.kv_unified = True
    params.n_ctx = launch["context_length"] * launch["slots"]
    params.kv_unified_per_slot = launch["context_length"]
    params.n_batch = params.n_ubatch = launch["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = launch["threads"]
    params.embedding = launch["embedding"]
    params.chat_template = launch["chat_template"]
    # The engine would keep 8 GiB of old prompts.
    params.cache_ram_mib = 0
    # The launch says what it wants; it must fail rather than get less.
    params.fit_params = False
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
