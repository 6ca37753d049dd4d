"""The kinds of requests: which threads serve them, and how many without a key are served."""

from __future__ import annotations

import pytest

from mes.server.request_kinds import (
    MANY_WITHOUT_KEY,
    MAX_OF_ADDRESS,
    MAX_WITHOUT_KEY,
    Admission,
    AdmittedRequest,
    RequestKind,
    ServiceBusy,
    address_of,
    kind_of,
)

HEALTH_CHECK, WITH_KEY, WITHOUT_KEY = RequestKind
PEER = "192.0.2.1"


def head(*headers: str, line: str = "POST /v1/inference HTTP/1.1") -> bytes:
    return "\r\n".join((line, "Host: mes", *headers, "", "")).encode("latin-1")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("GET /health HTTP/1.1", HEALTH_CHECK),
        ("HEAD /health HTTP/1.0", HEALTH_CHECK),
        ("GET /ready HTTP/1.1", HEALTH_CHECK),
        ("GET /ready?probe=1 HTTP/1.1", HEALTH_CHECK),
        ("POST /health HTTP/1.1", WITHOUT_KEY),
        ("GET /healthy HTTP/1.1", WITHOUT_KEY),
        ("GET /docs HTTP/1.1", WITHOUT_KEY),
        ("GET /docs?/health HTTP/1.1", WITHOUT_KEY),
    ],
)
def test_a_health_check_is_known_by_its_path(line, kind):
    assert kind_of(head(line=line), lambda key: False) is kind


@pytest.mark.parametrize(
    "headers",
    [
        ["Authorization: Bearer right"],
        ["authorization:bearer  right \t"],
        ["AUTHORIZATION: BEARER right", "Accept: */*"],
        ["X-API-Key: right"],
        ["x-api-key:right"],
        ["X-API-Key: wrong", "Authorization: Bearer right"],
    ],
)
def test_a_valid_key_is_found_in_either_header(headers):
    assert kind_of(head(*headers), lambda key: key == "right") is WITH_KEY


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Authorization: Bearer wrong"],
        ["Authorization: Basic right"],
        ["Authorization: Bearer"],
        ["X-Authorization: Bearer right"],
        ["Accept: Authorization: Bearer right"],
        ["X-API-Key: right and more"],
        ["X-API-Key: \xfc"],
    ],
)
def test_anything_else_is_a_request_without_a_key(headers):
    assert kind_of(head(*headers), lambda key: key == "right") is WITHOUT_KEY


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        ([], 0, PEER),
        (["198.51.100.7"], 0, PEER),
        ([], 1, PEER),
        (["198.51.100.7"], 1, "198.51.100.7"),
        (["made-up, 198.51.100.7"], 1, "198.51.100.7"),
        (["made-up", "198.51.100.7"], 1, "198.51.100.7"),
        (["198.51.100.7, 203.0.113.9"], 2, "198.51.100.7"),
        (["198.51.100.7"], 2, PEER),
        ([""], 1, PEER),
    ],
)
def test_the_address_is_that_which_the_outermost_trusted_proxy_adds(forwarded, proxies, address):
    headers = [f"X-Forwarded-For: {each}" for each in forwarded]
    assert address_of(head(*headers), PEER, trusted_proxies=proxies) == address


def without_key(address: str) -> AdmittedRequest:
    return AdmittedRequest(WITHOUT_KEY, address)


def admit_until_refused(admission: Admission, address: str) -> int:
    """Return the number of requests without a key that are admitted from the address."""
    count = 0
    try:
        while True:
            admission.admit(without_key(address))
            count += 1
    except ServiceBusy:
        return count


def test_one_address_gets_many_places_while_there_are_enough():
    admission = Admission()
    assert admit_until_refused(admission, PEER) == MANY_WITHOUT_KEY


def test_when_many_are_served_each_address_gets_a_few():
    admission = Admission()
    admit_until_refused(admission, PEER)
    assert admit_until_refused(admission, "198.51.100.7") == MAX_OF_ADDRESS


def test_all_addresses_together_get_no_more_than_the_maximum():
    admission = Admission()
    counts = [admit_until_refused(admission, f"198.51.100.{n}") for n in range(100)]
    assert sum(counts) == MAX_WITHOUT_KEY
    assert counts[-1] == 0


def test_a_place_is_free_again_when_its_answer_was_sent():
    admission = Admission()
    admit_until_refused(admission, PEER)
    admission.release(without_key(PEER))
    assert admit_until_refused(admission, PEER) == 1


@pytest.mark.parametrize("kind", [HEALTH_CHECK, WITH_KEY])
def test_health_checks_and_requests_with_a_key_are_always_admitted(kind):
    admission = Admission()
    for number in range(100):
        admit_until_refused(admission, f"198.51.100.{number}")
    for _ in range(2 * MAX_WITHOUT_KEY):
        admission.admit(AdmittedRequest(kind, PEER))
