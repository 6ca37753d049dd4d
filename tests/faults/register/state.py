"""Faults of files and clocks."""

from __future__ import annotations

from tests.faults.register.case import Case, case

STATE: dict[str, Case] = {
    "D1": case(
        "the state's file is cut",
        "integration/test_state_directory.py"
        "::test_damage_to_the_registry_file_changes_nothing_and_is_repaired",
        "scheduling/test_store.py::test_half_a_document_is_unusable",
    ),
    "D2": case(
        "the state's file holds something else",
        "integration/test_state_directory.py"
        "::test_damage_to_the_registry_file_changes_nothing_and_is_repaired",
        "scheduling/test_store.py::test_a_file_of_another_program_is_unusable",
        "scheduling/test_store.py::test_a_wrong_value_at_any_depth_makes_a_file_unusable",
    ),
    "D3": case(
        "it is deleted",
        "integration/test_state_directory.py"
        "::test_a_deleted_registry_file_changes_nothing_and_is_written_anew",
        "integration/test_state_directory.py::test_a_deleted_directory_is_created_again",
    ),
    "D4": case(
        "it cannot be written",
        "integration/test_state_directory.py"
        "::test_a_read_only_directory_is_named_and_requests_are_served",
    ),
    "D5": case(
        "the disk is full",
        "integration/test_state_directory.py::test_a_full_directory_is_named_and_requests_are_served",
    ),
    "D6": case(
        "a lock is left by a dead process, or removed",
        "scheduling/test_shared_file.py::test_the_lock_of_a_killed_process_is_free",
        "integration/test_state_directory.py::test_a_directory_without_an_instance_is_taken_over",
        "integration/test_state_directory.py::test_deleted_wakeup_pipes_are_created_again",
    ),
    "D7": case(
        "a file system without locks",
        "scheduling/test_instance_lock.py::test_a_directory_without_locks_is_refused_with_the_reason",
    ),
    "D8": case(
        "many processes write at once",
        "scheduling/test_shared_file.py::test_no_update_is_lost_among_many_processes",
        "metrics/test_counters.py::test_processes_that_add_at_once_lose_nothing",
    ),
    "D9": case(
        "others can read the keys",
        "integration/test_keys.py::test_a_file_that_others_may_read_is_warned_of_once",
        "cli/test_check.py::test_a_key_that_others_can_read_is_found",
    ),
    "D10": case(
        "the log can no longer be written",
        "test_logs.py::test_a_closed_standard_output_raises_nothing",
        "test_logs.py::test_a_full_disk_under_standard_output_raises_nothing",
    ),
    "D11": case(
        "no descriptor is left",
        "integration/test_slow_clients.py"
        "::test_a_worker_without_a_file_descriptor_left_lives_and_makes_room",
    ),
}

TIME: dict[str, Case] = {
    "T1": case(
        "the wall clock jumps",
        "integration/test_state_directory.py::test_the_wall_clock_may_jump",
    ),
    "T2": case(
        "it jumps while a model is idle",
        "integration/test_state_directory.py::test_the_wall_clock_may_jump",
    ),
    "T3": case(
        "an invalid timeout", "api/test_inference.py::test_a_mistake_is_named_with_its_field"
    ),
}
