"""Every setting of the service, and the only reader of the environment.

`settings.py` declares each setting once: name, default, help text and parser; `docs/settings.md` is
generated from it. `parsers.py` turns text into values, `redis_url.py` reads the two forms of
REDIS_URL that name several servers. A bad value stops the start with one line that names it.

Nothing here connects to anything, and no other package reads the environment.
"""
