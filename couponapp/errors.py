"""All errors of the service.

    CouponAppError
    ├── ConfigurationError       the process cannot start
    ├── InvalidRequest           the caller's mistakes and the answers «no»
    ├── Unauthenticated
    ├── CouponNotFound
    ├── NotFound
    ├── MessageNotFound
    ├── RuleViolated
    ├── TooManyRequests
    ├── ConstraintViolated       a constraint of the database refused the statement
    ├── ChannelFailed            a notification could not be delivered
    └── Unavailable              not now: the API answers 503
        ├── QueueFull
        │   └── Overloaded
        ├── PoolExhausted
        ├── CircuitOpen
        ├── DeadlineExceeded
        ├── StatementTimedOut
        ├── ConnectionLost
        └── ServerTrouble

Each class has a stable `code`, which the API shows; `couponapp.web.responses` maps it to an HTTP
status. The docstring is the default message. Errors of drivers and libraries are translated where
they are raised, with their cause.
"""

from __future__ import annotations


class CouponAppError(Exception):
    """An unexpected error occurred."""

    code = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(CouponAppError):
    """The service cannot start with these settings."""

    code = "CONFIGURATION_ERROR"


class InvalidRequest(CouponAppError):
    """The request is not valid."""

    code = "INVALID_REQUEST"


class Unauthenticated(CouponAppError):
    """The bearer token is missing or not valid."""

    code = "UNAUTHENTICATED"


class CouponNotFound(CouponAppError):
    """There is no such coupon."""

    code = "COUPON_NOT_FOUND"


class NotFound(CouponAppError):
    """There is nothing here."""

    code = "NOT_FOUND"


class RuleViolated(CouponAppError):
    """The coupon's state does not allow this."""

    code = "RULE_VIOLATED"


class TooManyRequests(CouponAppError):
    """A rate limit refused the attempt."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self, retry_after_s: int, limit: int = 0) -> None:
        """Keep what the answer's headers tell.

        Args:
            retry_after_s: when the window ends, in seconds.
            limit: what the window allows; 0 where the answer does not tell it.
        """
        super().__init__()
        self.retry_after_s = retry_after_s
        self.limit = limit


class Unavailable(CouponAppError):
    """A system that this request needs does not answer in time."""

    code = "SERVICE_UNAVAILABLE"


class QueueFull(Unavailable):
    """The queue is full; the request is refused at once."""


class Overloaded(QueueFull):
    """The process has been overloaded for a while, and this request has waited too long."""


class PoolExhausted(Unavailable):
    """No pooled connection became free in time."""


class CircuitOpen(Unavailable):
    """The circuit breaker is open, because too many recent calls have failed."""


class DeadlineExceeded(Unavailable):
    """The request has reached its deadline."""


class StatementTimedOut(Unavailable):
    """PostgreSQL did not finish the statement in time."""


class ConnectionLost(Unavailable):
    """The connection to PostgreSQL broke; it is unknown whether the statement took effect."""


class ServerTrouble(Unavailable):
    """PostgreSQL reports that it cannot serve requests now."""


class ConstraintViolated(CouponAppError):
    """A database constraint refused the statement, which had no effect."""

    code = "CONSTRAINT_VIOLATED"

    def __init__(self, constraint: str) -> None:
        super().__init__(f"constraint {constraint} refused the statement")
        self.constraint = constraint


class ChannelFailed(CouponAppError):
    """A notification channel did not accept a message."""

    code = "CHANNEL_FAILED"

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float | None = None) -> None:
        """Set what was wrong, and whether another try makes sense.

        Args:
            message: for the log and the dead letter.
            permanent: the channel will never accept this notification.
            retry_after_s: how long the channel asks for a pause of all notifications, in seconds.
        """
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class MessageNotFound(CouponAppError):
    """There is no such dead letter."""

    code = "MESSAGE_NOT_FOUND"
