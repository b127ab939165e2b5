"""Which tests prove what of the faults that dxad must survive at its sources and sinks, by line of matrix.

N1  the broker is down at the start, or for an hour
N2  the link is half open
N3  the broker restarts and forgets the session
N4  a slow sink
N5  a sink says 4xx, 5xx, nothing, nonsense
N6  acknowledgements are lost: the same id again
N7  TLS expired, wrong authority, wrong host, plain on a TLS port: refused, and never fallen back
N8  DNS fails, an address changes
N9  1,000 reconnects: memory and descriptors flat
P1  malformed, empty, huge, NaN, deep, bad UTF-8, wrong type
P2  a decoder raises
P3  Modbus exceptions, silence, garbage, wrong id, function or length
P4  OPC-UA restart, bad status, changed certificate, shifted namespace
P5  serial unplug, half frames, wrong baud, flood
T1  the gateway's clock is set by ten years
T2  stamps out of order, duplicate, in the future, ancient
"""

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]

MATRIX: Final = {
    "N1": (
        "contract/test_sinks.py::test_says_not_connected_while_the_far_side_is_gone_and_works_when_it_is_back",
        "unit/test_deliver.py::test_an_outage_is_said_once_when_it_begins_and_once_when_it_ends",
        "contract/test_sources.py::test_a_device_that_is_not_there_is_not_connected_and_the_reason_says_where",
        "contract/test_sources.py::test_notices_that_the_device_has_gone_and_delivers_again_when_it_is_back",
        "unit/ingest/test_link.py::test_an_hour_without_the_broker_is_two_lines_and_costs_next_to_nothing",
        "unit/test_source_mqtt_mosquitto.py::test_a_killed_broker_is_noticed_at_once",
        "unit/test_source_mqtt_faults.py::test_a_broker_that_is_not_there_at_the_start_is_found_when_it_comes",
    ),
    "N2": (
        "unit/test_sink_mqtt.py::test_silence_is_noticed_and_told",
        "unit/test_source_mqtt.py::test_a_dead_link_is_noticed_by_its_keep_alive",
        "unit/test_source_mqtt_faults.py::test_a_link_that_carries_nothing_any_more_is_given_up_within_its_keep_alive",
        "unit/test_source_opcua.py::test_a_dead_cable_is_noticed_by_the_age_of_data",
        "unit/test_source_opcua.py::test_closing_over_a_dead_cable_takes_bounded_time",
        "unit/test_source_opcua_faults.py::test_half_open_is_noticed_by_the_age_of_data",
        "unit/test_source_modbus.py::test_a_device_that_answers_nothing_is_not_connected",
        "unit/ingest/test_patience.py::test_silence_of_all_that_promise_a_rate_outweighs_a_session_that_seems_alive",
        "unit/ingest/test_link.py::test_a_source_that_falls_silent_is_connected_anew",
    ),
    "N3": (
        "unit/test_sink_mqtt_brokers.py::test_a_restart_of_the_broker_is_known_at_once_and_costs_a_connection",
        "unit/test_source_mqtt311.py::test_a_session_brings_what_came_meanwhile_and_its_loss_is_told",
        "unit/test_source_mqtt_faults.py::test_a_broker_that_restarts_and_forgets_is_told_and_asked_anew",
        "unit/test_source_mqtt_session.py::test_mosquitto_sends_each_once_also_what_came_while_we_were_away",
        "unit/test_source_mqtt_session.py::test_it_is_remembered_as_long_as_the_broker_remembers_the_session",
    ),
    "N4": (
        "system/test_sinks.py::test_a_sink_that_hangs_costs_the_others_nothing",
        "unit/test_deliver_drain.py::test_a_slow_sink_costs_the_others_nothing",
        "unit/test_deliver_drain.py::test_a_peer_that_takes_long_gets_smaller_batches",
        "unit/test_sink_http_wire.py::test_a_peer_that_answers_drop_by_drop_is_given_up",
    ),
    "N5": (
        "system/test_sinks.py::test_whatever_is_answered_every_event_arrives_in_order_and_none_is_lost",
        "system/test_sinks.py::test_a_poison_event_ends_in_the_dead_letters_and_its_neighbours_do_not_wait",
        "unit/test_deliver.py::test_a_poison_record_is_dead_after_so_many_attempts",
        "unit/test_sink_http.py::test_is_isolated_and_its_neighbours_are_delivered",
        "unit/test_sink_http.py::test_may_heal_and_costs_no_records",
        "unit/test_sink_http.py::test_nonsense_acknowledges_nothing",
        "unit/test_sink_http.py::test_silence",
        "unit/test_sink_http_wire.py::test_too_large_a_body_is_remembered",
        "unit/test_sink_mqtt.py::test_a_message_that_the_broker_will_not_take_is_rejected_alone",
        "unit/test_sink_mqtt.py::test_what_is_no_fault_of_the_message_costs_none_and_keeps_the_connection",
        "unit/test_sink_mqtt.py::test_a_message_at_which_the_broker_hangs_up_each_time_is_rejected",
        "unit/test_sink_webhook.py::test_a_chat_that_takes_few_a_minute_gets_each_event_once",
    ),
    "N6": (
        "system/test_sinks.py::test_acks_that_a_broker_owes_us_cost_no_event_and_no_order",
        "system/test_sinks.py::test_whatever_is_answered_every_event_arrives_in_order_and_none_is_lost",
        "unit/test_deliver.py::test_a_lost_link_costs_nothing_and_the_same_ids_come_again",
        "unit/test_deliver_drain.py::test_an_answer_that_was_lost_has_the_same_batch_again_first",
        "unit/test_sink_http_wire.py::test_the_same_events_have_the_same_key_whatever_was_answered",
        "unit/test_sink_mqtt.py::test_acks_that_are_lost_say_what_is_known_and_the_same_come_again",
    ),
    "N7": (
        "unit/test_sink_http_wire.py::test_an_expired_certificate_is_refused",
        "unit/test_sink_http_wire.py::test_an_authority_that_nobody_trusts_is_refused",
        "unit/test_sink_http_wire.py::test_a_certificate_of_another_host_is_refused_and_a_name_may_be_given",
        "unit/test_sink_http_wire.py::test_nothing_is_ever_sent_in_plain_where_tls_is_meant",
        "unit/test_sink_http_wire.py::test_tls_where_plain_is_meant_is_told",
        "unit/test_sink_mqtt_brokers.py::test_both_sides_show_certificates",
        "unit/test_source_mqtt_tls.py::test_a_certificate_that_has_expired_is_refused",
        "unit/test_source_mqtt_tls.py::test_an_authority_that_nobody_trusts_is_refused",
        "unit/test_source_mqtt_tls.py::test_a_certificate_of_another_host_is_refused_and_a_name_may_be_given",
        "unit/test_source_mqtt_tls.py::test_neither_speaks_plain_where_tls_is_meant",
    ),
    "N8": (
        "system/test_sinks.py::test_a_name_that_fails_and_then_means_another_machine_is_followed",
        "unit/test_source_mqtt.py::test_a_name_that_does_not_resolve_is_told",
        "unit/test_source_mqtt_faults.py::test_a_name_that_fails_and_then_means_another_machine_is_followed",
        "system/test_addresses.py::test_an_address_that_has_changed_is_found_with_the_next_connection",
        "system/test_addresses.py::test_an_opcua_server_is_followed_by_its_name_and_certificate",
    ),
    "N9": (
        "system/test_sinks.py::test_a_thousand_reconnects_leave_nothing_behind",
        "unit/test_sink_http_wire.py::test_a_hundred_connections_leave_nothing_behind",
        "unit/test_sink_mqtt_brokers.py::test_a_hundred_connections_leave_nothing_behind",
        "contract/test_sources.py::test_connects_again_and_again_on_the_same_object_and_leaves_nothing_behind",
        "system/test_reconnects.py::test_of_mqtt",
        "unit/test_source_mqtt_faults.py::test_an_attempt_that_fails_leaves_no_descriptor",
        "system/test_reconnects.py::test_of_modbus",
        "system/test_reconnects.py::test_of_a_serial_line_that_is_pulled_and_plugged",
        "unit/test_source_opcua_faults.py::test_two_hundred_connections_leave_nothing_behind",
    ),
    "P1": (
        "unit/test_decode_json.py::test_a_malformed_message_is_told",
        "unit/test_decode_json.py::test_what_is_missing_or_no_number_is_none",
        "unit/test_decode_json.py::test_any_bytes_give_numbers_or_a_decode_error",
        "unit/test_decode_csv.py::test_any_bytes_give_finite_numbers_or_a_decode_error",
        "unit/test_decode_text.py::test_any_bytes_give_finite_numbers_or_a_decode_error",
        "unit/test_decode_others.py::test_junk_is_a_decode_error_or_a_value_and_nothing_else",
        "unit/test_source_mqtt.py::test_a_malformed_message_is_told_after_the_good_ones_around_it",
        "unit/test_source_mqtt.py::test_a_string_or_a_boolean_is_no_number",
        "unit/test_source_mqtt_faults.py::test_each_that_is_none_is_counted_and_the_next_is_read",
        "unit/test_source_mqtt_faults.py::test_a_field_that_is_no_number_is_bad_and_its_neighbour_good",
        "unit/test_source_mqtt311.py::test_a_message_of_ten_mebibytes_passes_by_and_the_others_are_read",
        "unit/ingest/test_samples.py::test_a_value_that_cannot_be_is_bad_and_counted_by_its_reason",
        "system/test_conservation.py::test_no_fault_of_an_mqtt_device_makes_a_sample_vanish",
    ),
    "P2": (
        "unit/ingest/test_link.py::test_bad_messages_are_counted_told_once_and_over_after_ten_quiet_seconds",
        "unit/ingest/test_link.py::test_what_it_does_not_know_how_to_handle_ends_the_service_with_the_source_closed",
        "unit/test_source_opcua.py::test_a_bug_while_staging_is_raised_as_it_is",
        "unit/test_source_mqtt_faults.py::test_a_decoder_that_fails_costs_its_message_alone",
        "unit/test_link_mqtt.py::test_a_message_that_cannot_be_taken_in_ends_the_connection",
    ),
    "P3": (
        "unit/test_source_modbus.py::test_an_exception_is_of_its_own_block_and_is_counted_by_its_code",
        "unit/test_source_modbus.py::test_an_answer_that_is_none_is_bad_and_harms_nobody",
        "unit/test_source_modbus.py::test_a_late_answer_is_never_taken_for_another",
        "unit/test_source_modbus.py::test_every_exception_is_a_reason_of_its_own",
        "unit/test_source_modbus_faults.py::test_every_fault_of_the_wire_is_tried",
        "unit/test_source_modbus_faults.py::test_no_good_value_is_wrong_whatever_happens_to_answers",
        "unit/test_source_modbus_lines.py::test_a_slave_that_falls_silent_costs_its_neighbours_nothing",
        "unit/test_source_modbus_lines.py::test_one_that_was_never_there_takes_a_tenth_of_the_line",
        "unit/test_source_modbus_lines.py::test_an_address_that_is_not_there_costs_its_own_channel_alone",
    ),
    "P4": (
        "unit/test_source_opcua.py::test_the_servers_opinion_of_a_value_is_kept",
        "unit/test_source_opcua_faults.py::test_stop_is_noticed_at_once_and_a_restart_is_found",
        "unit/test_source_opcua_faults.py::test_bad_status_is_bad_for_a_reason_and_named",
        "unit/test_source_opcua_faults.py::test_a_shifted_namespace_is_found_by_its_uri",
        "unit/test_source_opcua_faults.py::test_every_fault_of_the_catalogue_is_walked_through",
        "unit/test_source_opcua_security.py::test_a_changed_certificate_is_refused_until_its_file_is_removed",
        "contract/test_sources.py::test_notices_that_the_device_has_gone_and_delivers_again_when_it_is_back",
    ),
    "P5": (
        "unit/test_source_serial.py::test_a_pulled_device_is_noticed_at_once_after_what_it_sent",
        "unit/test_source_serial.py::test_a_replugged_device_is_joined_anew",
        "unit/test_source_serial.py::test_noise_of_a_wrong_baud_rate_is_bounded_and_told",
        "unit/test_source_serial.py::test_a_flood_is_bounded_and_counted",
        "unit/test_source_serial_wire.py::test_each_fault_of_the_wire_is_met_here",
        "unit/test_source_serial_wire.py::test_every_shape_of_frame_is_read_and_survives_all_that_can_happen_to_it",
    ),
    "T1": (
        "unit/ingest/test_time.py::test_setting_the_gateway_s_clock_by_ten_years_moves_no_sample_and_no_count",
    ),
    "T2": (
        "unit/ingest/test_time.py::test_a_stamp_in_the_future_is_rejected_and_moves_nothing",
        "unit/ingest/test_time.py::test_an_ancient_stamp_counts_as_its_arrival_and_moves_nothing",
        "unit/ingest/test_time.py::test_samples_out_of_order_find_their_slots",
        "unit/ingest/test_time.py::test_a_backlog_fills_the_slots_it_belongs_to_once",
        "unit/ingest/test_counts.py::test_what_came_before_with_the_same_stamp_is_dropped_and_counted",
    ),
}  # fmt: skip
"""By line of the matrix, tests as pytest names them."""


@cache
def names_in(path: Path) -> frozenset[str]:
    """All functions of a file, in classes too."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        each.name for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, functions)
    )


@pytest.mark.parametrize("line", MATRIX)
def test_each_line_is_proved_by_tests_that_there_are(line):
    assert MATRIX[line]
    missing = []
    for each in MATRIX[line]:
        path, _, name = each.partition("::")
        if not (TESTS / path).exists() or name not in names_in(TESTS / path):
            missing.append(each)
    assert missing == []
