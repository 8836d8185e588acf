"""The one tree of errors.

Each class has a stable `code` (the API's `code`, see `couponapp.web.responses` for the HTTP
status that goes with it) and its docstring is the default message.
"""

from __future__ import annotations


class CouponAppError(Exception):
    """Something went wrong."""

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
    """A part that this request needs does not answer in time."""

    code = "SERVICE_UNAVAILABLE"


class QueueFull(Unavailable):
    """So many already wait that one more is refused at once."""


class Overloaded(QueueFull):
    """More has come for a while than the process can serve, and this has waited too long already."""


class PoolExhausted(Unavailable):
    """No pooled connection became free in time."""


class CircuitOpen(Unavailable):
    """The circuit breaker is open: too many attempts have failed lately."""


class DeadlineExceeded(Unavailable):
    """The time that a request may take is used up."""


class StatementTimedOut(Unavailable):
    """PostgreSQL did not finish the statement in time."""


class ConnectionLost(Unavailable):
    """The connection to PostgreSQL broke; whether the statement took effect is unknown."""


class ServerTrouble(Unavailable):
    """PostgreSQL says that it cannot serve now."""


class ConstraintViolated(CouponAppError):
    """A constraint of the database refused the statement, which left no trace."""

    code = "CONSTRAINT_VIOLATED"

    def __init__(self, constraint: str) -> None:
        super().__init__(f"constraint {constraint} refused the statement")
        self.constraint = constraint


class ChannelFailed(CouponAppError):
    """A notification channel did not accept a message."""

    code = "CHANNEL_FAILED"

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float | None = None) -> None:
        """Tell what was wrong, and whether it makes sense to try again.

        Args:
            message: for the log and the dead letter.
            permanent: the channel will never accept this message.
            retry_after_s: how long the channel asks to be left alone, with all messages, in seconds.
        """
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class MessageNotFound(CouponAppError):
    """There is no such dead letter."""

    code = "MESSAGE_NOT_FOUND"
