"""The worker process: one relay, and one RQ worker per notification channel.

`main.py` starts each part in a child process and restarts a part that dies; `rq_worker.py` is RQ's
worker with bounded waits; `metrics.py` exports the metrics of all parts on one port.

The process composes what `notifying` offers. What is sent, and when, is decided there.
"""
