"""Who waits for whom."""

from __future__ import annotations

from tests.faults.register.case import AGAIN_AND_AGAIN, Case, case

SCHEDULING: dict[str, Case] = {
    "S1": case(
        "more come than may wait",
        "integration/test_queue.py::test_a_full_queue_refuses_at_once",
        "integration/test_permits.py::test_sixty_are_served_in_order_of_arrival",
    ),
    "S2": case(
        "one waits too long",
        "integration/test_deadlines_and_loads.py"
        "::test_who_waits_longer_than_the_queue_timeout_is_told_so",
    ),
    "S3": case(
        "many want a model that is not loaded",
        "integration/test_memory.py::test_forty_at_once_for_a_cold_model_cause_one_load",
    ),
    "S4": case(
        "the place that is wanted is in use",
        "scheduling/test_scheduler.py::test_a_busy_model_is_never_evicted",
        "integration/test_memory.py"
        "::test_five_models_share_two_places_and_every_request_is_answered",
    ),
    "S5": case(
        "two models, one place",
        "integration/test_grouping.py::test_interleaved_requests_for_two_models_cost_two_loads",
        "integration/test_grouping.py"
        "::test_who_waits_for_a_place_is_overtaken_for_no_longer_than_the_patience",
    ),
    "S6": case(
        "a model is removed behind our back",
        "integration/test_behind_our_back.py::test_a_model_that_was_removed_is_not_pulled",
    ),
    "S7": case(
        "the runtime is killed and comes back empty",
        "integration/test_runtime_lost.py"
        "::test_a_runtime_killed_under_load_costs_clean_errors_and_two_seconds",
        "integration/test_runtime_lost.py"
        "::test_a_runtime_that_comes_back_empty_is_seen_to_be_empty",
    ),
    "S8": case(
        "another model under the same name",
        "integration/test_behind_our_back.py::test_a_model_that_was_replaced_is_told_by_its_digest",
    ),
    "S9": case(
        "a caller leaves the queue",
        "integration/test_queue.py"
        "::test_who_hangs_up_in_the_queue_frees_the_place_and_never_reaches_the_runtime",
    ),
    "S10": case(
        "a caller leaves a generation",
        "integration/test_queue.py::test_who_hangs_up_while_it_generates_stops_the_runtime",
        "integration/test_queue.py::test_hanging_up_is_logged_as_499",
        "integration/test_streams.py::test_a_caller_that_leaves_frees_its_permit_and_the_runtime",
    ),
    "S11": case(
        "a caller does not read",
        "integration/test_answers_under_load.py::test_clients_that_do_not_close_hold_nobody_up",
        "integration/test_streams.py::test_a_reader_of_one_byte_a_second_holds_no_permit",
        "integration/test_streams.py::test_a_reader_that_stops_is_cut_off_and_others_go_on",
    ),
    "S12": case(
        "one key floods the others",
        because="the queue is in order of arrival for all keys; quotas of keys are not offered",
    ),
    "S13": case(
        "a benchmark beside people in a hurry",
        because="there is one class of requests; a model for people in a hurry has its own queue",
    ),
    "S14": case("permits after a thousand faults", AGAIN_AND_AGAIN),
}
