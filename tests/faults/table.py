"""All faults that leave the service alive, in one table."""

from tests.faults import bodies, heads, leaving, upstream
from tests.faults.fault import Fault

FAULTS = [
    *upstream.FAULTS,
    *(Fault(*row) for row in (*bodies.ROWS, *heads.ROWS)),
    *leaving.FAULTS,
]
