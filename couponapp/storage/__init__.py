"""PostgreSQL: pools, timeouts, driver errors turned into ours, migrations."""
