"""What operators do while the service runs: check the invariants, turn a switch.

`verify.py` counts what the database holds against what was promised; `switches.py` stores decisions
(the circuit breaker forced open or closed) that every web process reads twice a second.

Each change is one statement whose row count is the verdict. This package knows no Flask: commands and
pages call it and print what it returns.
"""
