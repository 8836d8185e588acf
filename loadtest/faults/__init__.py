"""`make faults`: break one thing at a time under load, and check that the service keeps its promises.

A `Fault` is data: a name, a block in which something is broken, and what requests may get meanwhile.
The `on_….py` files list the faults by what they break, on the servers of `stands.py`. `run.py` sends a
planned load from another process, applies the fault in the middle of it, and lets `judge.py` compare what
was seen with what was promised; faults of notifications (`notifying.py`) and issuing at full speed
(`full_speed.py`) have loads of their own. Every fault has a fresh service, and must be shown to have
reached it.
"""
