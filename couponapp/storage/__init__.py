"""PostgreSQL and Redis: connections, and nothing of what they are used for.

- `pool`: bounded pools of PostgreSQL connections, `session`: the settings of each connection, `watchdog`:
  ends waits that PostgreSQL itself does not end;
- `driver`: the one place where the driver's errors become those of `couponapp.errors`;
- `migrations`: applies the files of `migrations/`;
- `redis`: clients for one server, a master behind Sentinels, or a cluster.

Every wait has a bound. Pools and threads start at first use, so after gunicorn's fork. SQL with a
business word stands in the package that runs it, and psycopg is imported here only (and in `local`).
"""
