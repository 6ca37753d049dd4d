"""Faults of the runtime."""

from __future__ import annotations

from tests.faults.register.case import Case, case

RUNTIME: dict[str, Case] = {
    "U1": case(
        "the runtime does not listen",
        "ollama/test_faults.py::test_a_runtime_that_does_not_run_is_unavailable_and_named",
        "integration/test_runtime_lost.py::test_a_runtime_that_is_down_is_reported_as_down",
    ),
    "U2": case(
        "it takes the request and does not answer",
        "ollama/test_endings.py::test_the_deadline_holds_in_every_phase",
        "integration/test_deadlines_and_loads.py::test_a_generation_ends_at_its_deadline",
    ),
    "U3": case(
        "it begins an answer and falls silent",
        "ollama/test_endings.py::test_the_deadline_holds_in_every_phase",
    ),
    "U4": case(
        "its headers drip", "ollama/test_endings.py::test_the_deadline_holds_in_every_phase"
    ),
    "U5": case("its text drips", "ollama/test_endings.py::test_the_deadline_holds_in_every_phase"),
    "U6": case(
        "half of what it announced",
        "ollama/test_faults.py::test_a_generation_that_does_not_end_properly_is_aborted",
    ),
    "U7": case(
        "the stream breaks off",
        "ollama/test_faults.py::test_a_generation_that_does_not_end_properly_is_aborted",
        "api/test_stream.py::test_a_later_error_is_the_last_line",
        "integration/test_streams.py::test_a_generation_that_breaks_off_is_reported_in_the_last_line",
    ),
    "U8": case(
        "a reset",
        "ollama/test_faults.py::test_a_reset_connection_aborts_the_generation",
        "ollama/test_connections.py::test_a_fresh_connection_that_fails_is_not_tried_again",
    ),
    "U9": case(
        "half a line, nothing, or a page",
        "ollama/test_faults.py::test_invalid_bytes_are_an_invalid_reply",
    ),
    "U10": case("never done, or done twice", "ollama/test_faults.py::test_the_first_done_counts"),
    "U11": case(
        "an error in the middle of the stream",
        "ollama/test_faults.py::test_a_generation_that_does_not_end_properly_is_aborted",
    ),
    "U12": case(
        "it can make no grammar of the schema",
        "ollama/test_faults.py"
        "::test_an_invalid_grammar_is_a_refused_schema_only_if_there_is_a_schema",
        "api/test_inference.py"
        "::test_a_schema_the_runtime_refuses_goes_into_the_prompt_and_that_is_remembered",
    ),
    "U13": case(
        "it does not have the model",
        "ollama/test_transcripts.py::test_the_error_of_a_missing_model_names_the_command_that_pulls_it",
    ),
    "U14": case("it is busy", "ollama/test_faults.py::test_a_busy_runtime_names_the_time_to_wait"),
    "U15": case(
        "its runner dies, or finds no memory",
        "ollama/test_faults.py::test_the_error_of_a_runner_that_died_is_the_detail",
        "integration/test_deadlines_and_loads.py"
        "::test_a_load_that_fails_twice_is_an_error_for_all_that_wait_while_others_go_on",
    ),
    "U16": case(
        "a page of some proxy",
        "ollama/test_faults.py::test_the_text_of_another_server_is_never_passed_on",
    ),
    "U17": case(
        "it redirects",
        "ollama/test_faults.py::test_a_redirect_is_refused_and_its_target_never_contacted",
    ),
    "U18": case(
        "an answer without end",
        "ollama/test_faults.py::test_a_response_is_read_no_further_than_the_limit",
    ),
    "U19": case(
        "a packed answer",
        "ollama/test_faults.py::test_a_compressed_response_is_refused_and_never_decompressed",
    ),
    "U20": case("not HTTP", "ollama/test_faults.py::test_invalid_bytes_are_an_invalid_reply"),
    "U21": case(
        "more or less than it announced",
        "ollama/test_connections.py::test_bytes_after_a_response_are_not_taken_for_the_next_one",
    ),
    "U22": case(
        "it closes between two requests",
        "ollama/test_connections.py::test_a_stale_connection_is_replaced",
    ),
    "U23": case(
        "hints before the answer, another content type",
        "ollama/test_faults.py::test_interim_responses_are_skipped",
    ),
    "U24": case(
        "invalid text",
        "ollama/test_faults.py::test_invalid_bytes_are_an_invalid_reply",
        "ollama/test_faults.py::test_lines_are_joined_however_the_chunks_divide_them",
    ),
    "U25": case(
        "the model's JSON is outlandish",
        "api/test_inference.py::test_the_verdict_reports_whether_the_answer_fits_the_schema",
    ),
    "U26": case(
        "the model's JSON is wrapped, or none",
        "api/test_inference.py::test_the_verdict_reports_whether_the_answer_fits_the_schema",
        "structured/test_extraction.py::test_the_value_and_its_source_are_returned",
    ),
    "U27": case(
        "the model breaks the schema, once or each time",
        "api/test_structured.py::test_an_invalid_answer_is_generated_again_and_both_verdicts_are_reported",
        "structured/test_retry.py::test_no_more_attempts_are_made_than_were_asked_for",
    ),
    "U28": case(
        "out of tokens, or unloaded meanwhile",
        "structured/test_retry.py::test_a_truncated_answer_is_retried_with_twice_the_tokens",
    ),
    # An invalid count would falsify a score, so it is an error and not a zero.
    "U29": case("missing or invalid counts", "ollama/test_faults.py::test_absent_counts_are_zero"),
    "U30": case("headers of its own", "ollama/test_connections.py::test_cookies_are_not_kept"),
    "U31": case(
        "many ask for a model that is slow to load",
        "integration/test_memory.py::test_forty_at_once_for_a_cold_model_cause_one_load",
    ),
    "U32": case(
        "it sends its reasoning", "ollama/test_faults.py::test_thinking_is_never_part_of_the_text"
    ),
}
