"""The kinds of requests, known from their heads: health checks, with a key and without one.

Each kind has threads of its own, so that requests without a key cannot delay the others. The
application still checks the key: a wrong guess here changes only which thread serves the request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

_HEALTH_CHECK = re.compile(rb"(GET|HEAD) /(health|ready)[ ?]")
_KEY = re.compile(
    rb"\n(?:authorization:[ \t]*bearer[ \t]|x-api-key:)[ \t]*([!-~]+)[ \t]*\r", re.IGNORECASE
)
_FORWARDED_FOR = re.compile(rb"\nx-forwarded-for:([^\r]*)\r", re.IGNORECASE)

# The requests without a key that a worker serves at a time, from their arrival until their answers
# are sent. While more than a quarter are, those of one address are few.
MAX_WITHOUT_KEY = 256
MANY_WITHOUT_KEY = MAX_WITHOUT_KEY // 4
MAX_OF_ADDRESS = 8


class RequestKind(Enum):
    """The kind of a request, which decides what threads serve it."""

    HEALTH_CHECK = auto()
    WITH_KEY = auto()
    WITHOUT_KEY = auto()


def kind_of(head: bytes, is_valid_key: Callable[[str], bool]) -> RequestKind:
    """Return the kind of the request with this head, which ends with an empty line."""
    if _HEALTH_CHECK.match(head):
        return RequestKind.HEALTH_CHECK
    # The application refuses a request with two keys, if one is wrong.
    if any(is_valid_key(key.decode("ascii")) for key in _KEY.findall(head)):
        return RequestKind.WITH_KEY
    return RequestKind.WITHOUT_KEY


def address_of(head: bytes, peer: str, *, trusted_proxies: int) -> str:
    """Return the address of the client.

    Args:
        peer: the other end of the connection.
        trusted_proxies: the number of proxies in front that append to X-Forwarded-For.
    """
    forwarded = b",".join(_FORWARDED_FOR.findall(head)).decode("latin-1").split(",")
    if not 0 < trusted_proxies <= len(forwarded):
        return peer
    return forwarded[-trusted_proxies].strip() or peer


class ServiceBusy(Exception):
    """Too many requests without a key are served, of one address or of all."""


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that is being served: its kind and the address of its client."""

    kind: RequestKind
    address: str


class Admission:
    """Counts the requests without a key that a worker serves. Not thread-safe."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()

    def admit(self, request: AdmittedRequest) -> None:
        """Count a request until `release`; others than those without a key are not counted.

        Raises:
            ServiceBusy: too many requests without a key are served.
        """
        if request.kind is RequestKind.WITHOUT_KEY:
            served, of_address = self._by_address.total(), self._by_address[request.address]
            is_too_many = served >= MANY_WITHOUT_KEY and of_address >= MAX_OF_ADDRESS
            if is_too_many or served >= MAX_WITHOUT_KEY:
                raise ServiceBusy
            self._by_address[request.address] += 1

    def release(self, request: AdmittedRequest) -> None:
        """End the count of a request, after its answer was sent or its connection closed."""
        if request.kind is RequestKind.WITHOUT_KEY:
            self._by_address[request.address] -= 1
            self._by_address += Counter()  # drops addresses without a request
