"""Notifications: outbox → relay → RQ job → channel. The outbox in PostgreSQL is the truth."""
