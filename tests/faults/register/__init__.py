"""The register: the cases of the catalogue, and for each the tests that keep the promise.

Cases that stand in the table of faults are kept by the tests of the table too, one by one and in
random order; `kept_by` adds them by itself.
"""

from tests.faults.register.case import AGAIN_AND_AGAIN, EACH
from tests.faults.register.processes import PROCESSES
from tests.faults.register.requests import KEYS, REQUESTS
from tests.faults.register.runtime import RUNTIME
from tests.faults.register.scheduling import SCHEDULING
from tests.faults.register.state import STATE, TIME
from tests.faults.table import FAULTS

CASES = {**RUNTIME, **PROCESSES, **STATE, **TIME, **SCHEDULING, **REQUESTS, **KEYS}


def kept_by(number: str) -> tuple[str, ...]:
    """The tests that keep the promise of this case, as pytest names them below tests/."""
    in_the_table = any(fault.case == number for fault in FAULTS)
    return CASES[number].kept_by + ((EACH, AGAIN_AND_AGAIN) if in_the_table else ())
