"""The HTTP server's side: gunicorn's gevent worker with a bound on everything a client does.

`gevent_worker.py` accepts connections and reports each round of the event loop to the overload guard.
`client_connection.py` bounds how long a client may take to send a request or to read an answer.
`open_files.py` derives the number of connections from the process's limit of open files.

It may import the application; no other package imports it. It holds no rule of the business.
"""
