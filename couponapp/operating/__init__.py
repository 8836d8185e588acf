"""What operators do while the service runs: verify the invariants, set switches.

`verify.py` checks the rows of the database against what the service guarantees. `switches.py` stores
settings (the circuit breaker forced open or closed) that every web process reads twice a second.

This package changes rows and returns rows. It knows no Flask: commands and pages call it and print what
it returns. It does not talk to the web processes; they read the table.
"""
