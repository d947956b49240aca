"""Every number that a client or a function can meet, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one backend. Meeting one raises ``LimitExceeded`` naming it, or closes the offending connection.

    Sizes count by the formula of ``reactor.values.codec.size`` unless said otherwise.
    """

    # Values and documents
    document_size_bytes: int = 1 * MIB
    document_depth: int = 16  # a scalar has depth 0
    value_depth: int = 64  # of arguments and results
    object_fields: int = 1024
    array_elements: int = 8192
    field_name_chars: int = 1024
    identifier_chars: int = 64  # of tables, indexes, functions and top-level document fields
    arguments_size_bytes: int = 16 * MIB
    result_size_bytes: int = 16 * MIB

    # Schema
    tables: int = 10_000
    indexes_per_table: int = 64
    fields_per_index: int = 16

    # Environment variables
    env_variables: int = 512
    env_name_chars: int = 256
    env_value_bytes: int = 8 * KIB
    env_total_bytes: int = 512 * KIB  # names and values

    # Files. Their size has no limit but the disk's.
    upload_url_s: float = 3600.0  # an upload has to begin within this time of its URL
    upload_time_s: float = 3600.0  # and to end within this time of its beginning
    upload_idle_s: float = 30.0  # a client that sends, or takes, next to nothing for this long is dropped
    uploads_running: int = 32
    content_type_chars: int = 255

    # One transaction
    documents_read: int = 32_000
    bytes_read: int = 16 * MIB  # JSON text of the documents
    index_ranges_read: int = 4096  # every get and every query is one
    documents_written: int = 16_000
    bytes_written: int = 16 * MIB  # JSON text, too
    page_items: int = 32_000
    page_split_items: int = 6144  # a page above it recommends its own split
    function_time_s: float = 1.0  # computing, the database's time not counted
    function_wait_s: float = 10.0  # a query or mutation that neither computes nor ends, nor waits for the database
    action_time_s: float = 600.0
    call_depth: int = 32  # nested ctx.run_query / ctx.run_mutation / ctx.run_action
    mutation_attempts: int = 5
    log_lines: int = 256
    log_line_chars: int = 4096
    error_message_chars: int = 64 * KIB

    # Scheduled functions
    functions_pending: int = 1_000_000  # scheduled and not begun, on all nodes; one that is reached refuses what is scheduled
    functions_scheduled: int = 1000  # by one call from outside, with all that it calls
    scheduled_arguments_size_bytes: int = 4 * MIB  # JSON text
    scheduling_horizon_s: float = 5 * 365 * 86_400.0  # ahead, and back
    scheduled_mutations_running: int = 16  # on one node
    scheduled_actions_running: int = 64  # on one node
    scheduler_lease_s: float = 15.0  # after a node's death, how long until others take up what it was to run

    # One connection
    frame_size_bytes: int = 32 * MIB  # received
    sent_frame_size_bytes: int = 5_000_000  # larger transitions are chunked or fragmented
    queries_per_session: int = 10_000
    mutations_queued_per_session: int = 1000
    actions_running_per_session: int = 1000
    session_requests_bytes: int = 64 * MIB  # paths and arguments of its queries, and of what has not run yet
    session_answers_bytes: int = 64 * MIB  # not taken yet: above it mutations wait, and an action's answer closes the connection
    http_head_bytes: int = 64 * KIB  # of a request: its address and headers. One that came in one piece is not measured
    http_body_size_bytes: int = 16 * MIB + 2000
    http_batch_queries: int = 1000
    token_size_bytes: int = 16 * KIB  # of an identity provider
    http_action_body_bytes: int = 20 * MIB  # of a request to an HTTP action, and of its answer
    http_actions_running: int = 512  # at one time on a node; above it requests get 503
    silent_request_s: float = 30.0  # a client that neither sends the rest of its request nor takes the answer is dropped
    close_timeout_s: float = 10.0  # a reader that never reads is dropped this long after the close
    ping_after_s: float = 15.0  # of silence
    silent_client_s: float = 120.0  # a client that answers no WebSocket ping for this long is dropped

    # One node
    row_cache_bytes: int = 128 * MIB  # documents read or written lately
    results_cached: int = 1000  # of queries asked for once, kept until a commit touches them
    result_cached_bytes: int = 64 * KIB  # a larger one, with its arguments, is not kept

    # Kept in the database
    request_retention_s: float = 14 * 86_400.0
    scheduled_retention_s: float = 7 * 86_400.0  # of a scheduled function, from its end
    log_retention_s: float = 7 * 86_400.0


DEFAULT_LIMITS = Limits()
