"""Flask-Limiter around the views that work per user or that write.

    @api.get("/me/coupons")
    @limited("limit_my_coupons", per_bearer)
    def my_coupons() -> Response: …

The number is a setting, the caller's key a function. Counting is the same as on the issue path: in
Redis with a bound of 50 ms, in the process while Redis is away (couponapp.guards.rate_limits). A refusal
is the one 429 answer of the service. Public look-ups are answered from memory and need no limit; the
issue path has several limits at once, which its service passes together (docs/decisions/0012).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, request
from flask_limiter import Limiter, RateLimitExceeded

from couponapp.errors import TooManyRequests
from couponapp.guards.strategy import NAME, AllOrNone
from couponapp.services import Services
from couponapp.web.identity import bearer_user, cookie_user

_MARK = "rate_limit"
_LIMITER = "couponapp-limiter"
View = TypeVar("View", bound=Callable[..., Any])


def per_bearer() -> str:
    """Return the key of the user that the request's bearer token names; raises Unauthenticated."""
    return f"user:{bearer_user(request.environ)}"


def per_visitor() -> str:
    """Return the key of the page's visitor: the user of its cookie, else the network address."""
    user = cookie_user()
    return f"user:{user}" if user else per_address()


def per_address() -> str:
    """Return the key of the caller's network address."""
    return f"address:{request.remote_addr}"


def limited(setting: str, key: Callable[[], str]) -> Callable[[View], View]:
    """Limit a view. Put it below the route: `install` finds it there.

    Args:
        setting: the attribute of the settings with the number, such as `120/minute`.
        key: returns the caller whose requests count together.
    """

    def mark(view: View) -> View:
        setattr(view, _MARK, (setting, key))
        return view

    return mark


class _DecoratorLimiter(Limiter):
    """Flask-Limiter without its hooks: a limit applies where a view is decorated.

    The hooks run at every request, also where there is no limit. With them a bare Flask route takes 1.9
    times as long (115 microseconds more, measured; docs/decisions/0012).
    """

    def init_app(self, app: Flask) -> None:
        """Register with an application, and take the three hooks away again."""
        super().init_app(app)
        for hooks in (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs):
            hooks[None].pop()


def install(app: Flask, services: Services) -> None:
    """Put Flask-Limiter around every view that is marked by `limited`.

    Args:
        app: with all its views.
        services: whose settings and counters the limits use.
    """
    limiter = _DecoratorLimiter(key_func=per_address, storage_uri="memory://", strategy=NAME)
    limiter.init_app(app)
    strategy = limiter.limiter
    assert isinstance(strategy, AllOrNone)
    strategy.counters = services.counters
    app.extensions[_LIMITER] = limiter
    for endpoint, view in app.view_functions.items():
        if rule := getattr(view, _MARK, None):
            setting, key = rule
            limit: Callable[[Any], Any] = limiter.limit(getattr(services.settings, setting), key_func=key)
            app.view_functions[endpoint] = limit(view)


def too_many_requests(_: RateLimitExceeded) -> TooManyRequests:
    """Return a refusal of Flask-Limiter as the service's own error."""
    limiter: Limiter = current_app.extensions[_LIMITER]
    refused = limiter.current_limit
    return TooManyRequests(max(1, math.ceil(refused.reset_at - time.time())) if refused else 1)
