"""Every metric, declared once. The web processes add up their values in a shared directory."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter("coupon_issue_attempts_total", "Attempts to issue, by result code.", ["code"])
ATTEMPT_SECONDS = Histogram(
    "coupon_issue_seconds",
    "Time to answer an attempt to issue, in seconds, without those answered from memory.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)
UNAVAILABLE = Counter("coupon_unavailable_total", "Answers with status 503, by cause.", ["cause"])
REQUESTS = Counter("coupon_http_requests_total", "HTTP requests, by route and status.", ["route", "status"])
# Each process has a circuit breaker of its own: «liveall» adds the label `pid`.
BREAKER_STATE = Gauge(
    "coupon_breaker_state",
    "1 for the circuit breaker's current state, 0 for the others.",
    ["breaker", "state"],
    multiprocess_mode="liveall",
)
BREAKER_FORCED = Gauge(
    "coupon_breaker_forced",
    "1 for the operator's current setting of the circuit breaker (open, closed, or auto), 0 for the others.",
    ["breaker", "forced"],
    multiprocess_mode="liveall",
)
BREAKER_CALLS = Gauge(
    "coupon_breaker_window_calls",
    "Results in the circuit breaker's window.",
    ["breaker"],
    multiprocess_mode="liveall",
)
BREAKER_FAILURE_PERCENT = Gauge(
    "coupon_breaker_failure_percent",
    "Share of failures in the circuit breaker's window, in percent.",
    ["breaker"],
    multiprocess_mode="liveall",
)
BREAKER_SLOW_PERCENT = Gauge(
    "coupon_breaker_slow_percent",
    "Share of slow calls in the circuit breaker's window, in percent.",
    ["breaker"],
    multiprocess_mode="liveall",
)
BREAKER_REFUSED = Gauge(
    "coupon_breaker_refused_calls",
    "Calls that the circuit breaker has refused since the process started.",
    ["breaker"],
    multiprocess_mode="liveall",
)
LOOP_ROUND_SECONDS = Gauge(
    "coupon_loop_round_seconds",
    "The longest recent wait of a request for its turn in this web process, in seconds.",
    multiprocess_mode="liveall",
)
SWITCHES_AGE = Gauge(
    "coupon_switches_age_seconds",
    "Time since the operators' switches were last read, in seconds.",
    multiprocess_mode="liveall",
)
POOL_CONNECTIONS = Gauge(
    "coupon_pool_connections", "Pooled connections, by state.", ["pool", "state"], multiprocess_mode="livesum"
)
POOL_CONNECTIONS_MAX = Gauge(
    "coupon_pool_connections_max", "The most connections that a pool may open.", ["pool"], multiprocess_mode="livesum"
)
POOL_WAITING = Gauge("coupon_pool_waiting", "Requests waiting for a connection.", ["pool"], multiprocess_mode="livesum")
LIMITS_SHARED = Gauge(
    "coupon_limits_shared_processes",
    "Web processes that count their rate limits in Redis; the others count in their own memory.",
    ["limits"],
    multiprocess_mode="livesum",
)
NOTIFICATIONS_WAITING = Gauge(
    "coupon_notifications_waiting",
    "Notifications that a channel has not accepted yet, without dead letters.",
    ["channel"],
    multiprocess_mode="livemax",
)
NOTIFICATIONS_OLDEST_SECONDS = Gauge(
    "coupon_notifications_oldest_seconds",
    "Age of the oldest waiting notification, in seconds; 0 if none waits.",
    ["channel"],
    multiprocess_mode="livemax",
)
NOTIFICATIONS_DEAD_LETTERS = Gauge(
    "coupon_notifications_dead_letters",
    "Dead letters that have not been retried or dropped.",
    ["channel"],
    multiprocess_mode="livemax",
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
