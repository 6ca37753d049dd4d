"""Faults of processes: kills, stops, reloads and starts."""

from __future__ import annotations

from tests.faults.register.case import RANDOM_ORDER, Case, case

PROCESSES: dict[str, Case] = {
    "P1": case(
        "a worker is killed while it has permits and streams",
        "integration/test_killed_workers.py"
        "::test_a_killed_workers_permits_serve_others_within_a_second",
        "integration/test_killed_workers.py"
        "::test_workers_killed_at_random_moments_leave_nothing_behind",
        "integration/test_streams.py"
        "::test_a_worker_that_is_killed_breaks_its_streams_and_gives_their_permits_back",
    ),
    "P2": case(
        "a stop while requests run that will soon be done",
        "integration/test_stops.py::test_running_requests_finish_and_waiting_ones_are_refused_at_once",
    ),
    "P3": case(
        "a stop while requests run that take too long",
        "integration/test_stops.py::test_a_stop_waits_for_graceful_timeout_and_answers_running_requests",
    ),
    "P4": case(
        "a stop while requests wait",
        "integration/test_stops.py::test_running_requests_finish_and_waiting_ones_are_refused_at_once",
    ),
    "P5": case(
        "a reload under load",
        "integration/test_reloads.py::test_reloads_under_load_lose_no_request",
        "integration/test_reloads.py"
        "::test_running_and_waiting_requests_are_served_by_the_old_workers",
    ),
    "P6": case(
        "the master is killed",
        "integration/test_stops.py::test_workers_whose_master_was_killed_end_and_refuse_waiting_requests",
        "integration/test_stops.py"
        "::test_a_killed_master_is_followed_by_another_at_once_and_the_limits_hold",
    ),
    "P7": case(
        "a worker is stopped for a while",
        "integration/test_state_directory.py"
        "::test_a_stopped_worker_keeps_its_permits_and_delays_no_request",
    ),
    "P8": case(
        "a bug, no stack left, no memory left",
        "api/test_inference.py::test_an_unexpected_exception_is_logged_and_not_shown",
    ),
    "P9": case(
        "a schema made to keep the worker busy",
        "integration/test_hostile_schemas.py::test_hostile_schemas_do_not_slow_down_others",
    ),
    "P10": case(
        "two services, one state directory",
        "integration/test_state_directory.py"
        "::test_a_second_instance_is_refused_with_the_name_of_the_first",
    ),
    "P11": case(
        "a start before the runtime's",
        "integration/test_lifecycle.py"
        "::test_a_start_without_a_runtime_serves_once_the_runtime_is_there",
    ),
    "P12": case(
        "a start that must fail",
        "cli/test_quickstart.py::test_a_taken_port_is_reported_without_a_traceback",
        "cli/test_quickstart.py::test_wrong_settings_are_reported_all_at_once",
        "integration/test_keys.py::test_a_broken_file_stops_the_start_with_every_mistake",
    ),
    "P13": case("very many requests", RANDOM_ORDER),
}
