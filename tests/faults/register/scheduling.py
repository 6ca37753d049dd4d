"""Faults of scheduling: queues, loads and evictions."""

from __future__ import annotations

from tests.faults.register.case import RANDOM_ORDER, Case, case

SCHEDULING: dict[str, Case] = {
    "S1": case(
        "more requests than may wait",
        "integration/test_queue.py::test_a_full_queue_refuses_at_once",
        "integration/test_permits.py::test_sixty_are_served_in_order_of_arrival",
    ),
    "S2": case(
        "a request waits too long",
        "integration/test_deadlines_and_loads.py"
        "::test_waiting_longer_than_the_queue_timeout_is_an_error",
    ),
    "S3": case(
        "many requests for a model that is not loaded",
        "integration/test_memory.py::test_forty_at_once_for_a_cold_model_cause_one_load",
    ),
    "S4": case(
        "the place that a load needs is in use",
        "scheduling/test_scheduler.py::test_a_busy_model_is_never_evicted",
        "integration/test_memory.py"
        "::test_five_models_share_two_places_and_every_request_is_answered",
    ),
    "S5": case(
        "two models, one place",
        "integration/test_grouping.py::test_interleaved_requests_for_two_models_cost_two_loads",
        "integration/test_grouping.py"
        "::test_a_request_for_another_model_is_overtaken_for_no_longer_than_the_patience",
    ),
    "S6": case(
        "another client of the runtime removes a model",
        "integration/test_external_changes.py::test_a_model_that_was_removed_is_not_pulled",
    ),
    "S7": case(
        "the runtime is killed and comes back empty",
        "integration/test_runtime_lost.py"
        "::test_a_runtime_killed_under_load_costs_clean_errors_until_it_is_back",
        "integration/test_runtime_lost.py"
        "::test_a_runtime_that_comes_back_empty_is_seen_to_be_empty",
    ),
    "S8": case(
        "another model under the same name",
        "integration/test_external_changes.py::test_a_replaced_model_has_another_digest",
    ),
    "S9": case(
        "a client hangs up in the queue",
        "integration/test_queue.py"
        "::test_a_client_that_hangs_up_in_the_queue_frees_its_place_and_never_reaches_the_runtime",
    ),
    "S10": case(
        "a client hangs up during its generation",
        "integration/test_queue.py::test_a_client_that_hangs_up_during_its_generation_stops_the_runtime",
        "integration/test_queue.py::test_hanging_up_is_logged_as_499",
        "integration/test_streams.py::test_a_client_that_hangs_up_frees_its_permit_and_the_runtime",
    ),
    "S11": case(
        "a client does not read",
        "integration/test_answers_under_load.py::test_clients_that_do_not_close_delay_no_other_client",
        "integration/test_streams.py::test_a_reader_of_one_byte_a_second_holds_no_permit",
        "integration/test_streams.py::test_a_reader_that_stops_is_cut_off_and_others_go_on",
        "integration/test_unread_answers.py::test_unread_answers_delay_no_other_client",
        "integration/test_unread_answers.py"
        "::test_a_client_that_does_not_read_is_disconnected_and_its_place_is_free_again",
        "integration/test_unread_answers.py"
        "::test_when_there_are_many_an_address_gets_few_and_others_are_served",
    ),
    "S12": case(
        "one key floods the others",
        reason="the queue is in order of arrival for all keys; quotas of keys are not offered",
    ),
    "S13": case(
        "a benchmark beside interactive clients",
        reason="there is one class of requests; a model for interactive clients has its own queue",
    ),
    "S14": case("permits after a thousand faults", RANDOM_ORDER),
}
