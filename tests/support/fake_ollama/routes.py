"""The routes of the fake runtime: Ollama's, and its own for tests."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tests.support.fake_ollama import answers
from tests.support.fake_ollama.answers import Refused, sample, with_tag
from tests.support.fake_ollama.ask import Ask, checked_name, parse
from tests.support.fake_ollama.embed import EmbedAsk
from tests.support.fake_ollama.faults import Fault, Faults, Script, break_off, script_named
from tests.support.fake_ollama.machine import ClientGone, LoadFailure, Machine
from tests.support.fake_ollama.model import Behaviour, Model
from tests.support.fake_ollama.pull import pull
from tests.support.fake_ollama.wire import (
    JSON,
    LAST_CHUNK,
    NDJSON,
    TEXT,
    Connection,
    Gone,
    Listener,
    Request,
    chunk,
    dump,
    head,
)

_TRAITS = {each.name for each in fields(Behaviour)}
_TOLD = {"models", "load_failures", "drop", "pulled", "replaced", "faults", "mode"}
_PIECE = re.compile(r"\s*\S+|\s+")


class Routes:
    """Answers each client; keeps the latest bodies as they came, beside the models' counters."""

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
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/chat"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("GET", "/_stats"): self._stats,
            ("POST", "/_control"): self._control,
            ("POST", "/_reset"): self._reset,
        }

    def serve(self, connection: Connection) -> None:
        """Answer one client's requests until it leaves."""
        while True:
            request = connection.read()
            try:
                self._answer(request, connection)
            except Refused as refusal:
                body = dump({"error": refusal.text})
                connection.answer(refusal.status, body, refusal.content_type)
            except ClientGone:
                return
            if request.closing:
                return

    def _answer(self, request: Request, connection: Connection) -> None:
        route = self._routes.get((request.method, request.path))
        if route is not None:
            route(request, connection)
        elif any(path == request.path for _, path in self._routes):
            connection.answer(405, b"405 method not allowed", TEXT)
        else:
            connection.answer(404, b"404 page not found", TEXT)

    def _strike(self, stage: str, model: str, connection: Connection) -> Fault:
        self.requests[stage] += 1
        return self.faults.strike(stage, model, connection)

    # Ollama's routes

    def _root(self, request: Request, connection: Connection) -> None:
        text = b"Ollama is running"
        top = head(200, "text/plain; charset=utf-8", len(text))
        connection.send(top if request.method == "HEAD" else top + text)

    def _version(self, request: Request, connection: Connection) -> None:
        self._strike("version", "", connection)
        body = dump({"version": "0.33.0"})
        connection.send(head(200, JSON, len(body)) + body * (request.method == "GET"))

    def _tags(self, request: Request, connection: Connection) -> None:
        self._strike("tags", "", connection)
        listed = [answers.tag(model) for model in self.machine.all()]
        connection.answer(200, dump({"models": listed}))

    def _ps(self, request: Request, connection: Connection) -> None:
        self._strike("ps", "", connection)
        listed = [answers.running(model) for model in self.machine.listed()]
        connection.answer(200, dump({"models": listed}))

    def _show(self, request: Request, connection: Connection) -> None:
        asked = parse(request.body)
        name = asked.get("model") or asked.get("name") or ""
        self._strike("show", name, connection)
        model = self.machine.find(checked_name(name))
        if model is None:
            raise Refused(404, f"model '{with_tag(name)}' not found")
        connection.answer(200, dump(answers.card(model)))

    def _pull(self, request: Request, connection: Connection) -> None:
        asked = parse(request.body)
        name = checked_name(asked.get("model") or asked.get("name") or "")
        fault = self._strike("pull", name, connection)
        try:
            pull(name, self.machine, fault, connection)
        except Gone:
            self.requests["broken_pull"] += 1
            raise

    def _generate(self, request: Request, connection: Connection) -> None:
        if self.instant and self._answer_instantly(request, connection):
            return
        asked = parse(request.body)
        self.bodies.append(asked)
        ask = Ask(asked, chat=request.path == "/api/chat")
        model = self.machine.find(checked_name(ask.name))
        if model is None:
            raise Refused(404, f"model '{ask.name}' not found")
        fault = self._strike(ask.stage, model.name, connection)
        ask.check(model)
        if ask.stage == "unload":
            self.machine.unload(model)
            connection.answer(200, dump(ask.bare("unload")))
        elif ask.stage == "load":
            self._load(model, ask, connection)
        else:
            self._run(model, ask, fault, connection)

    def _embed(self, request: Request, connection: Connection) -> None:
        asked = parse(request.body)
        self.bodies.append(asked)
        ask = EmbedAsk(asked)
        model = self.machine.find(checked_name(ask.name))
        if model is None:
            raise Refused(404, f'model "{ask.name}" not found, try pulling it first')
        fault = self._strike(ask.stage, model.name, connection)
        ask.check(model)
        if ask.texts:
            self._make_vectors(model, ask, fault, connection)
        else:
            self._load(model, ask, connection)

    def _make_vectors(
        self, model: Model, ask: EmbedAsk, fault: Fault, connection: Connection
    ) -> None:
        began = time.monotonic_ns()
        try:
            with self.machine.generation(model, ask.loader_options, connection, ask.texts[0]):
                started = time.monotonic_ns()
                ask.check_fits(model)
                connection.wait(len(ask.texts) * self.machine.of(model, "first_token_ms") / 1000)
        except LoadFailure as exc:
            raise Refused(500, str(exc)) from exc
        if fault:
            break_off(fault, connection)
        connection.answer(200, dump(ask.vectors(model, began, started)))

    def _load(self, model: Model, ask: Ask, connection: Connection) -> None:
        try:
            self.machine.load(model, ask.loader_options, connection)
        except LoadFailure as exc:
            raise Refused(500, str(exc)) from exc
        model.keep_alive_seconds = ask.keep_alive_seconds(model)
        connection.answer(200, dump(ask.bare("load")))

    def _run(self, model: Model, ask: Ask, fault: Fault, connection: Connection) -> None:
        began = time.monotonic_ns()
        pieces = self._pieces(model, ask)
        try:
            with self.machine.generation(model, ask.loader_options, connection, ask.prompt):
                started = time.monotonic_ns()
                ask.check_fits(model)
                if script := self._scripts.get(script_named(ask.prompt)):
                    script(connection, ask)
                    return
                connection.wait(self.machine.of(model, "first_token_ms") / 1000)
                first = time.monotonic_ns()
                self._say(pieces, model, ask, fault, connection)
        except LoadFailure as exc:
            raise Refused(500, str(exc)) from exc
        finally:
            if ask.unloads_after:
                self.machine.unload(model)
        final = ask.final(pieces, began, started, first)
        if not ask.stream:
            connection.answer(200, dump(final))
            return
        connection.line(final)
        connection.end()

    def _say(
        self,
        pieces: list[str],
        model: Model,
        ask: Ask,
        fault: Fault,
        connection: Connection,
    ) -> None:
        pause = self.machine.of(model, "ms_per_token") / 1000
        in_step = self.machine.of(model, "in_step")
        for number, piece in enumerate(pieces[: ask.limit]):
            if fault and number >= fault.get("after", 1):
                break
            if number and pause:
                connection.wait(pause - time.monotonic() % pause if in_step else pause)
            if ask.stream:
                connection.line(ask.piece(piece))
        if fault:
            break_off(fault, connection)

    def _pieces(self, model: Model, ask: Ask) -> list[str]:
        reply = self.machine.of(model, "reply")
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if reply is None and self.machine.of(model, "echo"):
            reply = ask.prompt
        if reply is None and ask.format:
            reply = json.dumps(sample(ask.format))
        return list(self.machine.words(model)) if reply is None else _PIECE.findall(reply)

    def _answer_instantly(self, request: Request, connection: Connection) -> bool:
        asked = json.loads(request.body)
        name = asked.get("model", "")
        model = self.machine.find(name)
        if model is None or model.state != "loaded" or not asked.get("prompt"):
            return False
        self.requests["generate"] += 1
        if name not in self._instant_replies:
            self._instant_replies[name] = _instant_reply(name)
        connection.send(self._instant_replies[name])
        return True

    # The fake's own

    def _stats(self, request: Request, connection: Connection) -> None:
        connections = sum(listener.connections for listener in self.listeners[:1])
        own = {"requests": self.requests, "bodies": list(self.bodies), "connections": connections}
        connection.answer(200, dump({**self.machine.stats(), **own}))

    def _reset(self, request: Request, connection: Connection) -> None:
        self.machine.reset()
        self.requests.clear()
        self.bodies.clear()
        connection.answer(200, b"{}")

    def _control(self, request: Request, connection: Connection) -> None:
        told = parse(request.body)
        unknown = set(told) - _TRAITS - _TOLD
        if unknown:
            raise Refused(400, f"unknown: {sorted(unknown)}")
        for name in _TRAITS & set(told):
            setattr(self.machine.behaviour, name, told[name])
        self.machine.emit(told)
        self.faults.planned = told.get("faults", self.faults.planned)
        self._change_mode(told.get("mode", self.faults.mode))
        connection.answer(200, b"{}")

    def _change_mode(self, mode: str) -> None:
        self.faults.mode = mode
        for listener in self.listeners[:1]:
            listener.close() if mode == "refuse" else listener.open()


def _instant_reply(name: str) -> bytes:
    ask = Ask({"model": name, "prompt": "x"}, chat=False)
    now = time.monotonic_ns()
    lines = [ask.piece("alpha"), ask.final(["alpha"], now, now, now)]
    return head(200, NDJSON, None) + b"".join(chunk(dump(x) + b"\n") for x in lines) + LAST_CHUNK
