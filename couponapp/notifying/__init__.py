"""Notifications: every holder of an issuance is notified on every configured channel.

Flow: outbox row (written by the issue statement) → relay → deliveries, one per channel → RQ job → channel.
Invariants: PostgreSQL is the only truth, and Redis holds nothing that cannot be lost. A delivery ends as
sent or dead (`state.py`). Delivery is at least once, and every try carries the same key.

On failure: what Redis, RQ or a dead process loses is due again when its lease expires. A failed try is
repeated after a growing delay; a delivery that is refused for good, runs out of tries or time, or keeps
crashing its process becomes a dead letter. A channel that keeps failing is paused. None of this delays issuing.

The package must not know Flask or issuing: they meet in the outbox table.
"""
