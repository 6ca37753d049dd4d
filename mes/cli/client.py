"""HTTP client of MES for the command line.

Each failure is raised as a `CommandError`, whose message is one line that names the remedy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import click
import requests
from urllib3.exceptions import ProtocolError

from mes.errors import format_number

_CONNECT_TIMEOUT_SECONDS = 5.0
# GET requests are answered in milliseconds.
GET_TIMEOUT_SECONDS = 15.0
# The service itself limits how long a load, a pull or a generation may take.
_NO_TIMEOUT = None

# Used in place of the service's detail, which also names headers that a user of `mes` never sees.
_UNAUTHORIZED = "the service does not accept the key; set --key or MES_API_KEY to a valid key"
# Messages by exception. A URL that `requests` rejects is a ValueError.
_CONNECTION_ERRORS: dict[type[Exception], str] = {
    requests.exceptions.SSLError: (
        "the certificate of {url} is not trusted; "
        "set REQUESTS_CA_BUNDLE to the file of its certificate authority"
    ),
    ValueError: "{url} is not a valid URL; set --url or MES_URL to http://host:port",
    requests.ReadTimeout: (
        f"{{url}} did not answer within {format_number(GET_TIMEOUT_SECONDS)} s; check its log"
    ),
}
# Added to the service's detail.
_REMEDIES = {"model_not_pulled": "; or fetch it with `mes pull`"}


class CommandError(click.ClickException):
    """An error that ends a command; its message is printed as one line.

    Args:
        code: the `code` of the problem document, where the service has refused the request.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mes: {self.message}", err=True)


class ServiceUnreachable(CommandError):
    """No server accepts connections at the address."""


@dataclass(frozen=True)
class Target:
    """The service that a command talks to, and the API key for it."""

    url: str
    key: str = field(repr=False)


class MesClient:
    """HTTP client of one MES service.

    Every method raises `CommandError` if the service cannot be reached, is not MES, or answers with
    an error.
    """

    def __init__(self, target: Target) -> None:
        self.url = target.url
        self._session = requests.Session()
        # Proxies and .netrc entries of the environment are not meant for this service.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.headers["Authorization"] = f"Bearer {_checked_key(target.key)}"

    def get(
        self, path: str, *, required_field: str, timeout: float = GET_TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """Return the JSON object at `path`.

        Raises:
            CommandError: also if the object lacks `required_field`; the service is then not MES.
        """
        document = self._successful(self._send("GET", path, timeout=timeout))
        if required_field not in document:
            raise self._not_mes(200)
        return document

    def get_any_status(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON object at `path`, without raising for an error status."""
        response = self._send("GET", path, timeout=GET_TIMEOUT_SECONDS)
        return response.status_code, self._parse(response.content, response.status_code)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """Send `body` as JSON and return the answer, without a time limit."""
        return self._successful(self._send("POST", path, body))

    def delete(self, path: str) -> dict[str, Any]:
        """Send a DELETE request and return the answer, without a time limit."""
        return self._successful(self._send("DELETE", path))

    def post_stream(self, path: str, body: Any = None) -> Generator[dict[str, Any]]:
        """Yield the JSON lines of a streamed answer as they arrive; raise one of type `error`."""
        with self._send("POST", path, body, stream=True) as response:
            try:
                yield from self._json_lines(response)
            except requests.RequestException as exc:
                raise self._connection_error(exc) from exc

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        stream: bool = False,
        timeout: float | None = _NO_TIMEOUT,
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                data=None if body is None else _encoded(body),
                headers={} if body is None else {"Content-Type": "application/json"},
                stream=stream,
                timeout=(_CONNECT_TIMEOUT_SECONDS, timeout),
                # A redirect would send the key to another server.
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            raise self._connection_error(exc) from exc

    def _json_lines(self, response: requests.Response) -> Iterator[dict[str, Any]]:
        if response.status_code != 200:
            self._successful(response)
        for line in response.iter_lines(chunk_size=1):
            document = self._parse(line, response.status_code)
            if document.get("type") == "error":
                raise _problem_error(document)
            yield document

    def _successful(self, response: requests.Response) -> dict[str, Any]:
        document = self._parse(response.content, response.status_code)
        if response.status_code == 200:
            return document
        problem = _problem(document)
        if "code" not in problem:
            raise self._not_mes(response.status_code)
        raise _problem_error(problem)

    def _parse(self, text: bytes, status: int) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError as exc:
            raise self._not_mes(status) from exc
        if not isinstance(document, dict):
            raise self._not_mes(status)
        return document

    def _connection_error(self, error: requests.RequestException) -> CommandError:
        for kind, message in _CONNECTION_ERRORS.items():
            if isinstance(error, kind):
                return CommandError(message.format(url=self.url))
        if error.args and isinstance(error.args[0], ProtocolError):
            return CommandError(
                f"the connection to {self.url} broke off before the answer ended; check its log"
            )
        return ServiceUnreachable(
            f"no server answers at {self.url}; start MES with `mes up` or `mes serve`, "
            "or set --url or MES_URL to its address"
        )

    def _not_mes(self, status: int) -> CommandError:
        return CommandError(
            f"the server at {self.url} (status {status}) is not MES; "
            "set --url or MES_URL to the address of MES"
        )


def _problem(document: dict[str, Any]) -> dict[str, Any]:
    """Return the problem document of an error, also of one in OpenAI's format."""
    error = document.get("error")
    return {**error, "detail": error.get("message")} if isinstance(error, dict) else document


def _problem_error(problem: dict[str, Any]) -> CommandError:
    """Return a problem document as an error, with the request id that the service's log has."""
    code = str(problem.get("code"))
    detail = _UNAUTHORIZED if code == "unauthorized" else str(problem.get("detail"))
    remedy = _REMEDIES.get(code, "")
    return CommandError(f"{detail}{remedy} ({code}, request {problem.get('request_id')})", code)


def _encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise CommandError("the text of the request is not UTF-8; convert it first") from exc


def _checked_key(key: str) -> str:
    if key.isascii() and key.isprintable() and " " not in key:
        return key
    raise CommandError(
        "the key contains characters that no key may have; "
        "set --key or MES_API_KEY to visible ASCII characters"
    )
