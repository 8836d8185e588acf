"""Every metric, declared once. The web processes add up their values in a shared directory."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge, Histogram

# What is shown of a gauge that several processes set: each value, with the label `pid`; their sum; the largest.
_gauge_of_each = partial(Gauge, multiprocess_mode="liveall")
_gauge_of_sum = partial(Gauge, multiprocess_mode="livesum")
_gauge_of_largest = partial(Gauge, multiprocess_mode="livemax")

ATTEMPTS = Counter("coupon_issue_attempts_total", "Attempts to issue, by result code.", ["code"])
ATTEMPT_SECONDS = Histogram(
    "coupon_issue_seconds",
    "Time to answer an attempt to issue, in seconds, without those answered from memory.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)
UNAVAILABLE = Counter("coupon_unavailable_total", "Answers with status 503, by cause.", ["cause"])
REQUESTS = Counter("coupon_http_requests_total", "HTTP requests, by route and status.", ["route", "status"])
# Each process has a circuit breaker of its own.
BREAKER_STATE = _gauge_of_each(
    "coupon_breaker_state", "1 for the circuit breaker's current state, 0 for the others.", ["breaker", "state"]
)
BREAKER_FORCED = _gauge_of_each(
    "coupon_breaker_forced",
    "1 for the operator's current setting of the circuit breaker (open, closed, or auto), 0 for the others.",
    ["breaker", "forced"],
)
BREAKER_CALLS = _gauge_of_each("coupon_breaker_window_calls", "Results in the circuit breaker's window.", ["breaker"])
BREAKER_FAILURE_PERCENT = _gauge_of_each(
    "coupon_breaker_failure_percent", "Share of failures in the circuit breaker's window, in percent.", ["breaker"]
)
BREAKER_SLOW_PERCENT = _gauge_of_each(
    "coupon_breaker_slow_percent", "Share of slow calls in the circuit breaker's window, in percent.", ["breaker"]
)
BREAKER_REFUSED = _gauge_of_each(
    "coupon_breaker_refused_calls", "Calls that the circuit breaker has refused since the process started.", ["breaker"]
)
LOOP_ROUND_SECONDS = _gauge_of_each(
    "coupon_loop_round_seconds", "The longest recent wait of a request for its turn in this web process, in seconds."
)
SWITCHES_AGE = _gauge_of_each(
    "coupon_switches_age_seconds", "Time since the operators' switches were last read, in seconds."
)
POOL_CONNECTIONS = _gauge_of_sum("coupon_pool_connections", "Pooled connections, by state.", ["pool", "state"])
POOL_CONNECTIONS_MAX = _gauge_of_sum(
    "coupon_pool_connections_max", "The most connections that a pool may open.", ["pool"]
)
POOL_WAITING = _gauge_of_sum("coupon_pool_waiting", "Requests waiting for a connection.", ["pool"])
LIMITS_SHARED = _gauge_of_sum(
    "coupon_limits_shared_processes",
    "Web processes that count their rate limits in Redis; the others count in their own memory.",
    ["limits"],
)
NOTIFICATIONS_WAITING = _gauge_of_largest(
    "coupon_notifications_waiting",
    "Notifications that a channel has not accepted yet, without dead letters.",
    ["channel"],
)
NOTIFICATIONS_OLDEST_SECONDS = _gauge_of_largest(
    "coupon_notifications_oldest_seconds",
    "Age of the oldest waiting notification, in seconds; 0 if none waits.",
    ["channel"],
)
NOTIFICATIONS_DEAD_LETTERS = _gauge_of_largest(
    "coupon_notifications_dead_letters", "Dead letters that have not been retried or dropped.", ["channel"]
)
NOTIFICATIONS_SENT = Counter("coupon_notifications_sent_total", "Notifications that a channel accepted.", ["channel"])
NOTIFICATIONS_RETRIED = Counter(
    "coupon_notifications_retried_total", "Failed tries that will be repeated.", ["channel"]
)
NOTIFICATIONS_DEAD = Counter("coupon_notifications_dead_total", "Notifications that became dead letters.", ["channel"])
NOTIFICATION_SECONDS = Histogram(
    "coupon_notification_seconds",
    "Time from the commit of an issuance until a channel accepted its notification, in seconds.",
    ["channel"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0),
)
