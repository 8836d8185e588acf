"""Every setting of the service, and the only reader of the environment.

`settings.py` declares each setting once: name, default, help text and parser. `document.py` generates the
tables of `docs/settings.md` from it. `parsers.py` turns text into values, `redis_url.py` parses the two
forms of REDIS_URL that name several servers. A bad value stops the start with one line that names it.

Nothing here connects to a server, and no other package reads the environment.
"""
