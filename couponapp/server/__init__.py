"""The HTTP server: gunicorn's gevent worker with a bound on everything that a client does.

`gevent_worker.py` accepts connections, refuses malformed and oversized requests, and reports each round of
the event loop to the overload guard. `client_connection.py` bounds how long a client may take to send a
request and to read the response. `open_files.py` derives the number of connections from the limit of
open files.

Each connection is handled by one greenlet. The server may import the application; no other package
imports the server, and it has no business rules. Why: docs/decisions/0019.
"""
