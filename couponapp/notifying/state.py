"""The states of a notification, and the SQL conditions that define them.

    outbox row                    deliveries, one per channel

                                            lease                      accepted
    not fanned out ──── fan out ────▶ DUE ──────────▶ DEFERRED ───────────────────────▶ SENT
                                       ▲               │  │
                                       ├── due_at ◀────┘  │ permanent failure, no tries left,
                                       │   passes         │ time limit over, or poisoned
                                       │                  ▼
                                       └── retry ◀────── DEAD ──── drop ────▶ (row deleted)

A failed try keeps the delivery DEFERRED, with a later `due_at`. A result counts even if the lease has
expired meanwhile, as long as no other has been recorded. The outbox row is sent (`outbox.sent_at`)
when its last delivery is SENT, or dropped while another is SENT; archiving then deletes both.

`tries` counts tries that were begun, `failures` those that ended with an error. `tries > failures` on a
DEFERRED delivery: a try is under way. On a DUE one: the process died during it, a crash suspect.
"""

from __future__ import annotations

from enum import StrEnum

# DUE or DEFERRED: the condition of the partial index `deliveries_open`.
OPEN = "sent_at IS NULL AND dead_at IS NULL"


class DeliveryState(StrEnum):
    """The states of a delivery. A value is the SQL condition of the rows in that state.

    Every row is in exactly one: a constraint forbids `sent_at` and `dead_at` together.

    Attributes:
        DUE: the relay may lease it.
        DEFERRED: not to be leased before `due_at`, since it is leased already or waits for a retry.
        SENT: the channel has accepted it for good.
        DEAD: a dead letter. It is not tried again until an operator decides.
    """

    DUE = f"{OPEN} AND due_at <= now()"
    DEFERRED = f"{OPEN} AND due_at > now()"
    SENT = "sent_at IS NOT NULL"
    DEAD = "dead_at IS NOT NULL"
