"""Faults of the runtime."""

from __future__ import annotations

from tests.faults.register.case import Case, case

RUNTIME: dict[str, Case] = {
    "U1": case(
        "the runtime does not listen",
        "ollama/test_faults.py::test_a_runtime_that_is_not_there_is_unavailable_and_named",
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
        "api/test_stream.py::test_what_breaks_off_later_is_the_last_line",
        "integration/test_streams.py::test_a_generation_that_breaks_off_is_reported_in_the_last_line",
    ),
    "U8": case(
        "a reset",
        "ollama/test_faults.py::test_a_reset_connection_aborts_the_generation",
        "ollama/test_connections.py::test_a_fresh_connection_that_fails_is_not_tried_again",
    ),
    "U9": case(
        "half a line, nothing, or a page",
        "ollama/test_faults.py::test_nonsense_on_the_wire_is_called_so",
    ),
    "U10": case("never done, or done twice", "ollama/test_faults.py::test_the_first_done_counts"),
    "U11": case(
        "an error in the middle of the stream",
        "ollama/test_faults.py::test_a_generation_that_does_not_end_properly_is_aborted",
    ),
    "U12": case(
        "it can make no grammar of the schema",
        "ollama/test_faults.py"
        "::test_a_grammar_that_fails_is_a_refused_schema_only_where_there_is_one",
        "api/test_inference.py"
        "::test_a_schema_the_runtime_refuses_is_told_instead_and_that_is_remembered",
    ),
    "U13": case(
        "it does not have the model",
        "ollama/test_transcripts.py::test_a_missing_model_is_told_how_to_get_it",
    ),
    "U14": case("it is busy", "ollama/test_faults.py::test_a_busy_runtime_says_when_to_come_again"),
    "U15": case(
        "its runner dies, or finds no memory",
        "ollama/test_faults.py::test_a_dead_runner_aborts_the_generation_with_its_last_words",
        "integration/test_deadlines_and_loads.py"
        "::test_a_load_that_fails_twice_is_an_error_for_all_that_wait_while_others_go_on",
    ),
    "U16": case(
        "a page of some proxy",
        "ollama/test_faults.py::test_what_is_not_ollamas_is_never_relayed",
    ),
    "U17": case(
        "it redirects",
        "ollama/test_faults.py::test_a_redirect_is_refused_and_its_target_never_contacted",
    ),
    "U18": case(
        "an answer without end",
        "ollama/test_faults.py::test_an_answer_is_read_no_further_than_the_cap",
    ),
    "U19": case(
        "a packed answer",
        "ollama/test_faults.py::test_a_packed_answer_is_refused_and_never_unpacked",
    ),
    "U20": case("not HTTP", "ollama/test_faults.py::test_nonsense_on_the_wire_is_called_so"),
    "U21": case(
        "more or less than it announced",
        "ollama/test_connections.py"
        "::test_a_longer_answer_than_stated_is_not_taken_for_the_next_one",
    ),
    "U22": case(
        "it closes between two requests",
        "ollama/test_connections.py::test_a_connection_that_went_stale_is_invisible",
    ),
    "U23": case(
        "hints before the answer, another content type",
        "ollama/test_faults.py::test_interim_answers_are_passed_over",
    ),
    "U24": case(
        "invalid text",
        "ollama/test_faults.py::test_nonsense_on_the_wire_is_called_so",
        "ollama/test_faults.py::test_lines_are_put_together_however_the_chunks_cut_them",
    ),
    "U25": case(
        "the model's JSON is outlandish",
        "api/test_inference.py::test_the_verdict_tells_what_became_of_the_schema",
    ),
    "U26": case(
        "the model's JSON is wrapped, or none",
        "api/test_inference.py::test_the_verdict_tells_what_became_of_the_schema",
        "structured/test_extraction.py::test_the_value_is_found_and_told_where_it_stood",
    ),
    "U27": case(
        "the model breaks the schema, once or each time",
        "api/test_structured.py::test_a_wrong_answer_is_asked_again_and_both_verdicts_are_told",
        "structured/test_retry.py::test_no_more_attempts_are_made_than_were_asked_for",
    ),
    "U28": case(
        "out of tokens, or unloaded meanwhile",
        "structured/test_retry.py::test_a_truncated_answer_is_asked_again_with_twice_the_tokens",
    ),
    # An invalid count would falsify a score, so it is an error and not a zero.
    "U29": case(
        "missing or invalid counts", "ollama/test_faults.py::test_missing_counts_are_nothing"
    ),
    "U30": case("headers of its own", "ollama/test_connections.py::test_cookies_are_not_kept"),
    "U31": case(
        "many ask for a model that is slow to load",
        "integration/test_memory.py::test_forty_at_once_for_a_cold_model_cause_one_load",
    ),
    "U32": case(
        "it sends its reasoning", "ollama/test_faults.py::test_thinking_is_never_part_of_the_text"
    ),
}
