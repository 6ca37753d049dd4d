"""The routes of the fake runtime: those of Ollama, and its own for tests."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tests.support.fake_ollama import disk_requests, responses
from tests.support.fake_ollama.connection import (
    JSON,
    LAST_CHUNK,
    NDJSON,
    TEXT,
    ClientGone,
    Connection,
    HttpRequest,
    Listener,
    chunk,
    dump,
    head,
)
from tests.support.fake_ollama.embed_request import EmbedRequest
from tests.support.fake_ollama.faults import Fault, Faults, Script, interrupt_stream, script_named
from tests.support.fake_ollama.generate_request import GenerateRequest, checked_name, parse
from tests.support.fake_ollama.generation import PAUSES, send_reasoning
from tests.support.fake_ollama.loading import LoadFailure
from tests.support.fake_ollama.machine import Machine
from tests.support.fake_ollama.model import Behaviour, Model
from tests.support.fake_ollama.pull import pull
from tests.support.fake_ollama.reasoning import Times, plain_output
from tests.support.fake_ollama.responses import ErrorResponse, sample, with_tag

_BEHAVIOUR = {field.name for field in fields(Behaviour)}
_OTHER_SETTINGS = {"models", "load_failures", "drop", "pulled", "replaced", "faults", "mode"}
_OTHER_SETTINGS |= {"abilities", "drop_orphans"}
_PIECE = re.compile(r"\s*\S+|\s+")


class Routes:
    """Answers the clients; keeps the latest bodies of requests for /_stats."""

    def __init__(
        self, models: list[str], *, instant: bool = False, scripts: Mapping[str, Script]
    ) -> None:
        self.machine = Machine(models)
        self.instant = instant
        self._scripts = scripts
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.bodies: deque[dict[str, Any]] = deque(maxlen=200)
        self.listeners: list[Listener] = []
        self._instant_replies: dict[str, bytes] = {}
        self._routes = {
            ("GET", "/"): self._root,
            ("HEAD", "/"): self._root,
            ("GET", "/api/version"): self._version,
            ("HEAD", "/api/version"): self._version,
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/pull"): self._pull,
            ("POST", "/api/copy"): self._copy,
            ("DELETE", "/api/delete"): self._delete,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/chat"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("GET", "/_stats"): self._stats,
            ("POST", "/_control"): self._control,
            ("POST", "/_reset"): self._reset,
        }

    def serve(self, connection: Connection) -> None:
        """Answer the requests of one client until it disconnects."""
        while True:
            request = connection.read()
            try:
                self._answer(request, connection)
            except ErrorResponse as error:
                connection.refuse(error.status, dump({"error": error.text}), error.content_type)
            except LoadFailure as failure:
                connection.answer(500, dump({"error": str(failure)}))
            if request.closes_connection:
                return

    def _answer(self, request: HttpRequest, connection: Connection) -> None:
        route = self._routes.get((request.method, request.path))
        if route is not None:
            route(request, connection)
        elif any(path == request.path for _, path in self._routes):
            connection.answer(405, b"405 method not allowed", TEXT)
        else:
            connection.answer(404, b"404 page not found", TEXT)

    def _apply_faults(self, stage: str, model: str, connection: Connection) -> Fault:
        self.requests[stage] += 1
        return self.faults.apply(stage, model, connection)

    # Routes of Ollama.

    def _root(self, request: HttpRequest, connection: Connection) -> None:
        text = b"Ollama is running"
        top = head(200, "text/plain; charset=utf-8", len(text))
        connection.send(top if request.method == "HEAD" else top + text)

    def _version(self, request: HttpRequest, connection: Connection) -> None:
        self._apply_faults("version", "", connection)
        body = dump({"version": "0.33.0"})
        connection.send(head(200, JSON, len(body)) + body * (request.method == "GET"))

    def _tags(self, request: HttpRequest, connection: Connection) -> None:
        self._apply_faults("tags", "", connection)
        listed = [responses.describe_tag(*entry) for entry in self.machine.disk.entries()]
        connection.answer(200, dump({"models": listed}))

    def _ps(self, request: HttpRequest, connection: Connection) -> None:
        self._apply_faults("ps", "", connection)
        listed = [responses.describe_running(model) for model in self.machine.listed()]
        connection.answer(200, dump({"models": listed}))

    def _show(self, request: HttpRequest, connection: Connection) -> None:
        body = parse(request.body)
        name = body.get("model") or body.get("name") or ""
        self._apply_faults("show", name, connection)
        model = self.machine.find(checked_name(name))
        if model is None:
            raise ErrorResponse(404, f"model '{with_tag(name)}' not found")
        connection.answer(200, dump(responses.describe_model(model)))

    def _pull(self, request: HttpRequest, connection: Connection) -> None:
        body = parse(request.body)
        name = checked_name(body.get("model") or body.get("name") or "")
        fault = self._apply_faults("pull", name, connection)
        try:
            pull(name, self.machine, fault, connection)
        except ClientGone:
            self.requests["broken_pull"] += 1
            raise

    def _copy(self, request: HttpRequest, connection: Connection) -> None:
        disk_requests.copy(request, self.machine.disk, connection)

    def _delete(self, request: HttpRequest, connection: Connection) -> None:
        body = parse(request.body)
        self._apply_faults("delete", body.get("model") or body.get("name") or "", connection)
        disk_requests.delete(body, self.machine.disk, connection)

    def _generate(self, request: HttpRequest, connection: Connection) -> None:
        if self.instant and self._answer_instantly(request, connection):
            return
        body = parse(request.body)
        self.bodies.append(body)
        parsed = GenerateRequest(body, chat=request.path == "/api/chat")
        model = self.machine.find(checked_name(parsed.name))
        if model is None:
            raise ErrorResponse(404, f"model '{parsed.name}' not found")
        fault = self._apply_faults(parsed.stage, model.name, connection)
        parsed.check(model)
        if parsed.stage == "unload":
            self.machine.unload(model)
            connection.answer(200, dump(parsed.empty_answer("unload")))
        elif parsed.stage == "load":
            self._load(model, parsed, connection)
        else:
            self._generate_text(model, parsed, fault, connection)

    def _embed(self, request: HttpRequest, connection: Connection) -> None:
        body = parse(request.body)
        self.bodies.append(body)
        parsed = EmbedRequest(body)
        model = self.machine.find(checked_name(parsed.name))
        if model is None:
            raise ErrorResponse(404, f'model "{parsed.name}" not found, try pulling it first')
        fault = self._apply_faults(parsed.stage, model.name, connection)
        parsed.check(model)
        if parsed.texts:
            self._embed_texts(model, parsed, fault, connection)
        else:
            self._load(model, parsed, connection)

    def _embed_texts(
        self, model: Model, request: EmbedRequest, fault: Fault, connection: Connection
    ) -> None:
        received = time.monotonic_ns()
        with self.machine.generation(model, request, connection, request.texts[0]) as loaded:
            request.check_fits(model)
            seconds_per_text = self.machine.setting(model, "first_token_ms") / 1000
            connection.wait(len(request.texts) * seconds_per_text)
        if fault:
            interrupt_stream(fault, connection)
        connection.answer(200, dump(request.answer(model, received, loaded)))

    def _load(self, model: Model, request: GenerateRequest, connection: Connection) -> None:
        self.machine.load(model, request, connection)
        connection.answer(200, dump(request.empty_answer("load")))

    def _generate_text(
        self, model: Model, request: GenerateRequest, fault: Fault, connection: Connection
    ) -> None:
        received = time.monotonic_ns()
        self.machine.behaviour.take_turn()
        output = request.output(
            _PIECE.findall(self.machine.setting(model, "thinking")),
            self._pieces(model, request),
            model,
        )
        try:
            with self.machine.generation(model, request, connection, request.prompt) as loaded:
                started = time.monotonic_ns()
                request.check_first_run(model, output)
                if script := self._scripts.get(script_named(request.prompt)):
                    script(connection, request)
                    return
                connection.wait(self.machine.setting(model, "first_token_ms") / 1000)
                times = Times(received, loaded, started, time.monotonic_ns())
                if output.reasoning:
                    pauses = (self.machine.setting(model, name) for name in PAUSES)
                    times = send_reasoning(output, times, model, request, connection, *pauses)
                self._stream(output.answer, model, request, fault, connection)
                if calls := self._calls(model, request):
                    connection.line(request.call_line(calls))
        finally:
            if request.unloads_after:
                self.machine.unload(model)
        last_line = request.last_line(output, times)
        if not request.stream:
            connection.answer(200, dump(last_line))
            return
        connection.line(last_line)
        connection.end()

    def _stream(
        self,
        pieces: list[str],
        model: Model,
        request: GenerateRequest,
        fault: Fault,
        connection: Connection,
    ) -> None:
        pause = self.machine.setting(model, "ms_per_token") / 1000
        in_step = self.machine.setting(model, "in_step")
        for number, piece in enumerate(pieces):
            if fault and number >= fault.get("after", 1):
                break
            if number and pause:
                connection.wait(pause - time.monotonic() % pause if in_step else pause)
            if request.stream:
                connection.line(request.piece_line(piece))
        if fault:
            interrupt_stream(fault, connection)

    def _pieces(self, model: Model, request: GenerateRequest) -> list[str]:
        reply = self.machine.setting(model, "reply")
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if reply is None and self.machine.setting(model, "echo"):
            reply = request.prompt
        is_constrained = request.is_constrained(model, self.machine.setting(model, "thinking"))
        if reply is None and is_constrained:
            reply = json.dumps(sample(request.format))
        return list(self.machine.default_pieces(model)) if reply is None else _PIECE.findall(reply)

    def _calls(self, model: Model, request: GenerateRequest) -> list[dict[str, Any]]:
        calls = self.machine.setting(model, "calls")
        is_possible = request.may_call or self.machine.setting(model, "calls_unasked")
        if not calls or not is_possible or not (request.is_chat and request.stream):
            return []
        return calls.pop(0) if len(calls) > 1 else calls[0]

    def _answer_instantly(self, request: HttpRequest, connection: Connection) -> bool:
        body = json.loads(request.body)
        name = body.get("model", "")
        model = self.machine.find(name)
        if model is None or model.state != "loaded" or not body.get("prompt"):
            return False
        self.requests["generate"] += 1
        if name not in self._instant_replies:
            self._instant_replies[name] = _instant_reply(name)
        connection.send(self._instant_replies[name])
        return True

    # Routes of the fake.

    def _stats(self, request: HttpRequest, connection: Connection) -> None:
        connections = sum(listener.connections for listener in self.listeners[:1])
        stats = {"requests": self.requests, "bodies": list(self.bodies), "connections": connections}
        connection.answer(200, dump({**self.machine.stats(), **stats}))

    def _reset(self, request: HttpRequest, connection: Connection) -> None:
        self.machine.reset()
        self.requests.clear()
        self.bodies.clear()
        connection.answer(200, b"{}")

    def _control(self, request: HttpRequest, connection: Connection) -> None:
        settings = parse(request.body)
        unknown = set(settings) - _BEHAVIOUR - _OTHER_SETTINGS
        if unknown:
            raise ErrorResponse(400, f"unknown settings: {sorted(unknown)}")
        for name in _BEHAVIOUR & set(settings):
            setattr(self.machine.behaviour, name, settings[name])
        self.machine.control(settings)
        self.faults.planned = settings.get("faults", self.faults.planned)
        self._change_mode(settings.get("mode", self.faults.mode))
        connection.answer(200, b"{}")

    def _change_mode(self, mode: str) -> None:
        self.faults.mode = mode
        for listener in self.listeners[:1]:
            listener.close() if mode == "refuse" else listener.open()


def _instant_reply(name: str) -> bytes:
    request = GenerateRequest({"model": name, "prompt": "x"}, chat=False)
    now = time.monotonic_ns()
    lines = [
        request.piece_line("alpha"),
        request.last_line(plain_output([], ["alpha"], None), Times(now, now, now, now)),
    ]
    chunks = [chunk(dump(line) + b"\n") for line in lines]
    return head(200, NDJSON, None) + b"".join(chunks) + LAST_CHUNK
