"""The cases of the catalogue of faults, each with its tests.

The faults of the table are also tested one by one and in random order; `covering_tests` adds
these tests.
"""

from tests.faults.register.case import EACH, RANDOM_ORDER
from tests.faults.register.processes import PROCESSES
from tests.faults.register.requests import KEYS, REQUESTS
from tests.faults.register.runtime import RUNTIME
from tests.faults.register.scheduling import SCHEDULING
from tests.faults.register.state import STATE, TIME
from tests.faults.table import FAULTS

CASES = {**RUNTIME, **PROCESSES, **STATE, **TIME, **SCHEDULING, **REQUESTS, **KEYS}


def covering_tests(number: str) -> tuple[str, ...]:
    """Return the tests of this case, as pytest names them below tests/."""
    in_the_table = any(fault.case == number for fault in FAULTS)
    return CASES[number].tests + ((EACH, RANDOM_ORDER) if in_the_table else ())
