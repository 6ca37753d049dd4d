"""Each fault alone: the client gets the expected response, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.faults.client import Client
from tests.faults.resource_usage import wait_until_idle, wait_until_logged
from tests.faults.table import FAULTS
from tests.integration.helpers import wait_until_at_rest


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_is_reported_and_leaves_nothing_behind(service, runtime, fault):
    number = FAULTS.index(fault)
    client = Client(service, address=f"127.1.{number // 250}.{number % 250 + 1}", seed=number)

    fault.expected.assert_met_by(fault.provoke(client))

    wait_until_at_rest(service)
    wait_until_idle(runtime)
    wait_until_logged(service, client.ids)
    assert client.infer().status == 200
    assert service.log_lines("internal_error") == []
    assert service.other_lines() == []


def test_no_two_faults_have_one_name():
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
