"""Guards: what bounds a request before and while it costs something.

- `rate_limits`: how often a user, an address, a process or all may try; it counts `hits` by a `strategy`, in
  `redis_counters` or `memory_counters`;
- `overload`, `deadline`: a request that has waited too long is refused, one that is handled ends in time;
- `circuit_breaker`: a failing system is not called for a while;
- `batcher`, `cache`: requests that want the same share one statement or one read;
- `switch_reader`: what operators have set.

A guard refuses with an error of `couponapp.errors` and never waits without a bound. Guards know no
coupon, no SQL and no view: what they guard is passed in, and so are clocks. They run in greenlets of a
web process, where `threading` objects switch greenlets, and in ordinary threads elsewhere.
"""
