"""Issuing: one user requests one coupon, exactly N are issued, one per user, and «issued» means committed.

`service.py` is the use case, step by step. `statement.py` is the one SQL statement that serves a batch.
`catalogue.py` knows what is offered, at most a second old; `sold_out.py` who holds a sold-out coupon, so
that a crowd that comes too late costs no round trip. `issuances.py` reads what a holder has.

PostgreSQL alone decides: what is cached here only answers when it cannot be wrong. When PostgreSQL does
not answer, the service raises `Unavailable` within its deadline; nothing waits without a bound.

This package knows neither Flask nor Redis: limits, circuit breaker and batcher are handed in.
"""
