"""Notifications: every issuance is told to its holder on every configured channel.

Data flows one way: outbox row (written by the issue statement) → relay → deliveries, one per channel
→ RQ job → channel. Invariants: PostgreSQL is the only truth, Redis holds nothing that cannot be lost.
A delivery ends as sent or dead (`state.py`), and a notification is sent when its last delivery is.
Delivery is at least once: every try carries the same key.

On failure: what Redis, RQ or a dead process loses is due again when its lease expires. A try that fails
is repeated after a growing delay. A delivery that is refused for good, runs out of tries or time, or
crashes its process again and again becomes a dead letter. A channel that fails often is paused by its
circuit breaker. An outage here delays notifications and never an issuance.

The package must not know Flask or issuing. Issuing knows only the outbox table.
"""
