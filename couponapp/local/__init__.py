"""`make run`: the whole service on one machine, with a PostgreSQL and a Valkey of its own."""
