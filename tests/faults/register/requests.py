"""Faults of clients: requests and keys."""

from __future__ import annotations

from tests.faults.register.case import Case, case

REQUESTS: dict[str, Case] = {
    "I1": case(
        "a body too large",
        "integration/test_http.py::test_a_body_too_large_is_refused_before_it_is_sent",
        "integration/test_behind_nginx.py::test_a_body_too_large_is_refused_as_the_service_would",
    ),
    "I2": case(
        "a body of another length, or too slow",
        "integration/test_http.py::test_a_malformed_body_is_rejected",
        "integration/test_slow_clients.py::test_many_slow_clients_delay_no_other_client",
    ),
    "I3": case(
        "JSON that is deep, or very large",
        "test_strict_json.py::test_only_texts_nested_deeper_than_the_limit_are_refused",
        "test_strict_json.py::test_no_text_of_a_megabyte_takes_long",
        "api/test_inference.py::test_of_very_many_mistakes_the_first_20_are_reported",
    ),
    "I4": case("invalid UTF-8", "api/test_inference.py::test_a_body_that_is_not_json_is_malformed"),
    "I5": case(
        "invalid numbers",
        "api/test_inference.py::test_a_body_that_is_not_json_is_malformed",
    ),
    "I6": case("a name twice", "api/test_inference.py::test_a_body_that_is_not_json_is_malformed"),
    "I7": case(
        "almost JSON",
        "integration/test_hostile_schemas.py::test_a_schema_that_is_not_json_is_malformed",
    ),
    "I8": case(
        "another content type",
        "api/test_inference.py::test_another_content_type_is_unsupported",
    ),
    "I9": case(
        "fields that are invalid or unknown",
        "api/test_inference.py::test_a_mistake_is_named_with_its_field",
    ),
    "I10": case("options of the runtime itself"),
    "I11": case("the client would keep models in memory"),
    "I12": case(
        "model names that are paths or addresses",
        "api/test_inference.py::test_a_model_that_may_not_be_run_is_not_found",
        "integration/test_http.py::test_each_request_gets_the_expected_status",
    ),
    "I13": case(
        "text that looks like commands",
        "test_logs.py::test_an_extra_cannot_replace_a_field",
    ),
    "I14": case(
        "images",
        "api/test_stream.py::test_a_mistake_in_a_conversation_is_named_with_its_place",
    ),
    "I15": case(
        "hostile schemas",
        "structured/test_hostile.py::test_a_hostile_schema_is_rejected_or_validates_answers",
        "structured/test_hostile.py::test_neither_checks_nor_validation_take_long",
        "structured/test_mutated_schemas.py::test_a_mutated_schema_is_rejected_or_validates_answers",
    ),
    "I16": case(
        "headers that are large, many or odd",
        "api/test_doors.py::test_a_safe_request_id_is_returned_and_an_unsafe_one_is_replaced",
    ),
    "I17": case(
        "a request inside another",
        "integration/test_smuggling.py::test_nginx_rejects_it_and_the_service_never_receives_it",
        "integration/test_smuggling.py::test_without_nginx_nothing_is_smuggled_either",
    ),
    "I18": case(
        "other versions and methods",
        "integration/test_http.py::test_each_request_gets_the_expected_status",
        "integration/test_http.py::test_head_answers_as_get_does_without_the_body",
    ),
    "I19": case("an idempotency key used twice", reason="idempotency keys are not offered"),
}

KEYS: dict[str, Case] = {
    "A1": case(
        "no key, or a wrong one",
        "api/test_doors.py::test_without_the_right_key_a_request_is_unauthorized",
    ),
    "A2": case(
        "two keys at once",
        "integration/test_http.py::test_each_request_gets_the_expected_status",
    ),
    "A3": case(
        "a key spelt in another way",
        "api/test_doors.py::test_the_key_is_accepted_in_either_header",
    ),
    "A4": case(
        "a key guessed by the time it takes",
        reason="a key is looked up by its SHA-256, so that the time shows nothing of it; a"
        " measurement of nanoseconds beside other tests would fail by chance",
    ),
    "A5": case(
        "a key is revoked",
        "integration/test_keys.py::test_a_key_is_replaced_without_a_restart_and_without_a_gap",
        "api/test_keys.py::test_a_revoked_key_is_refused_without_a_restart",
    ),
    "A6": case(
        "keys are guessed",
        "api/test_keys.py"
        "::test_after_ten_wrong_keys_more_are_rate_limited_and_correct_ones_are_accepted",
    ),
    "A7": case(
        "a key without the scope",
        "api/test_keys.py::test_loading_and_unloading_need_an_admin_key",
        "api/test_keys.py::test_all_else_needs_the_scope_inference",
    ),
    "A8": case(
        "a client claims another address",
        "api/test_keys.py::test_without_trusted_proxies_forwarded_addresses_are_ignored",
        "api/test_keys.py::test_behind_a_trusted_proxy_only_its_own_forwarded_address_counts",
    ),
}
