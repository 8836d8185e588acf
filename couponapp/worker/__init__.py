"""The worker process: one relay, and one RQ worker for each notification channel.

`main.py` starts each part in a child process and starts it again when it dies; `rq_worker.py` is RQ's
worker with bounded waits; `metrics.py` shows the parts' metrics on one port.

The process composes what `notifying` offers. It holds no rule about what is sent, or when.
"""
