"""`make bench`: variants of the service take turns in one run, and the result is their ratios.

`core.py`, `guards.py` and `growth.py` say which variants are compared; `baselines/` holds applications
that are not the service. `turns.py` measures them round by round, in random order, so that whatever
else the machine does meets all of them alike. `result.py` makes one JSON file of it, `tables.py` and
`document.py` show it, and `compare.py` finds the ratios that fell. docs/performance.md explains how to
read the figures. `notifications.py` is a measurement of its own.
"""
