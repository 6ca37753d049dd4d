"""The client: MES over HTTP, whose every failure is one line with its remedy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import click
import requests
from urllib3.exceptions import ProtocolError

from mes.config import settings
from mes.config.settings_schema import DEVELOPMENT_KEY

_CONNECT_SECONDS = 5.0
# Looks are answered in milliseconds.
LOOK_SECONDS = 15.0
# The service itself bounds how long a load, a pull or a generation may take.
_AS_LONG_AS_IT_TAKES = None

# Where the service's own words are for other clients than this one.
_UNAUTHORIZED = "the service does not accept the key; set --key or MES_API_KEY to one that it knows"
_REMEDIES = {"model_not_pulled": "; or `mes pull` it"}


class CommandError(click.ClickException):
    """What went wrong, in one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mes: {self.message}", err=True)


class ServiceUnreachable(CommandError):
    """Nobody answers at all."""


class Client:
    """Asks one service. Every method raises Problem."""

    def __init__(self, target: Target) -> None:
        self.url = target.url
        self._session = requests.Session()
        # A proxy or a .netrc of the environment is for other places than this one.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.headers["Authorization"] = f"Bearer {_sendable(target.key)}"

    def get(self, path: str, *, having: str) -> dict[str, Any]:
        """The document there, which has at least this member."""
        document = self._agreed(self._send("GET", path, seconds=LOOK_SECONDS))
        if having not in document:
            raise self._not_mes(200)
        return document

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """What comes of it, however long that takes."""
        return self._agreed(self._send("POST", path, body))

    def look(self, path: str) -> tuple[int, dict[str, Any]]:
        """The status and the document, whatever they are."""
        answer = self._send("GET", path, seconds=LOOK_SECONDS)
        return answer.status_code, self._document(answer)

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """The documents of a stream, as they come; one of type `error` is raised."""
        with self._send("POST", path, stream=True) as answer:
            try:
                yield from self._documents(answer)
            except requests.RequestException as exc:
                raise self._lost(exc) from exc

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        stream: bool = False,
        seconds: float | None = _AS_LONG_AS_IT_TAKES,
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                data=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": "application/json"},
                stream=stream,
                timeout=(_CONNECT_SECONDS, seconds),
                # The key is for this service and no other.
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            raise self._lost(exc) from exc

    def _documents(self, answer: requests.Response) -> Iterator[dict[str, Any]]:
        if answer.status_code != 200:
            self._agreed(answer)
        for line in answer.iter_lines(chunk_size=1):
            document = self._parsed(line, answer.status_code)
            if document.get("type") == "error":
                raise _error_from(document)
            yield document

    def _agreed(self, answer: requests.Response) -> dict[str, Any]:
        document = self._document(answer)
        if answer.status_code == 200:
            return document
        if "code" not in document:
            raise self._not_mes(answer.status_code)
        raise _error_from(document)

    def _document(self, answer: requests.Response) -> dict[str, Any]:
        return self._parsed(answer.content, answer.status_code)

    def _parsed(self, text: bytes, status: int) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError as exc:
            raise self._not_mes(status) from exc
        if not isinstance(document, dict):
            raise self._not_mes(status)
        return document

    def _lost(self, error: requests.RequestException) -> CommandError:
        if isinstance(error, requests.exceptions.SSLError):
            return CommandError(
                f"the certificate of {self.url} is not trusted; see REQUESTS_CA_BUNDLE"
            )
        if isinstance(error, ValueError):
            return CommandError(
                f"{self.url} is not an address; set --url or MES_URL to http://host:port"
            )
        if isinstance(error, requests.ReadTimeout):
            return CommandError(
                f"{self.url} does not answer within {LOOK_SECONDS:g} s; see its log"
            )
        if error.args and isinstance(error.args[0], ProtocolError):
            return CommandError(f"{self.url} broke off in the middle of its answer; see its log")
        return ServiceUnreachable(
            f"nothing answers at {self.url}; start MES with `mes serve`, "
            "or say where it is with --url or MES_URL"
        )

    def _not_mes(self, status: int) -> CommandError:
        return CommandError(
            f"what answers at {self.url} (status {status}) is not MES; "
            "say where that is with --url or MES_URL"
        )


def _error_from(problem: dict[str, Any]) -> CommandError:
    """The service's own words, and where its log tells more."""
    code = str(problem.get("code"))
    detail = _UNAUTHORIZED if code == "unauthorized" else str(problem.get("detail"))
    remedy = _REMEDIES.get(code, "")
    return CommandError(f"{detail}{remedy} ({code}, request {problem.get('request_id')})")


def _sendable(key: str) -> str:
    if key.isascii() and key.isprintable() and " " not in key:
        return key
    raise CommandError("the key holds what no key may; set --key or MES_API_KEY to visible ASCII")


# The target: which service the commands speak to, and with which key.

# Addresses to listen on, which nobody can call.
_TO_CALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Target:
    url: str
    key: str = field(repr=False)


def find_target(url: str | None, key: str | None) -> Target:
    """The service that is meant: by option, else by the environment, else the one on this machine.

    A wrong setting of the service is no reason not to speak to it, so nothing is checked here.
    """
    told = settings.load_unchecked()
    url = url or told.get("MES_URL") or _local(told)
    return Target(
        url=(url if "://" in url else f"http://{url}").rstrip("/"),
        key=key or told.get("MES_API_KEY") or DEVELOPMENT_KEY,
    )


def _local(told: Mapping[str, str]) -> str:
    host = told.get("HOST", "127.0.0.1")
    host = _TO_CALL.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{told.get('PORT', 8001)}"
