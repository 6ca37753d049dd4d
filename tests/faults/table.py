"""All faults that the service survives, in one table."""

from tests.faults import disconnects, request_bodies, request_headers, runtime_faults
from tests.faults.fault import Fault

FAULTS = [
    *runtime_faults.FAULTS,
    *(Fault(*row) for row in (*request_bodies.ROWS, *request_headers.ROWS)),
    *disconnects.FAULTS,
]
