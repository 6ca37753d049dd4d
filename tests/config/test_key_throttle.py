"""The limit on wrong keys of one client address."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mes.config import api_keys
from mes.config.api_keys import KeyThrottle


def test_the_eleventh_wrong_key_from_an_address_is_one_too_many():
    throttle = KeyThrottle()
    waits = [throttle.count("192.0.2.1") for _ in range(12)]
    assert waits[:10] == [None] * 10
    assert all(0 < wait <= 60 for wait in waits[10:])
    assert throttle.count("192.0.2.2") is None


def test_further_wrong_keys_do_not_extend_the_minute(monkeypatch):
    monkeypatch.setattr(api_keys, "_WINDOW_SECONDS", 0.5)
    throttle = KeyThrottle()
    until = time.monotonic() + 10
    while (wait := throttle.count("192.0.2.1")) is None or wait > 0.05:
        assert time.monotonic() < until


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "192.0.2.1", False),
    ],
)
def test_a_network_of_version_6_counts_as_one_address(one, other, together):
    throttle = KeyThrottle()
    for _ in range(10):
        throttle.count(one)
    assert (throttle.count(other) is not None) is together


def test_many_addresses_fill_no_memory():
    throttle = KeyThrottle()
    for number in range(api_keys._MAX_ADDRESSES + 100):
        throttle.count(str(number))
    assert len(throttle._windows) <= api_keys._MAX_ADDRESSES


def test_wrong_keys_are_counted_correctly_by_many_threads():
    throttle = KeyThrottle()
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: throttle.count("192.0.2.1"), range(800)))
    assert waits.count(None) == 10
