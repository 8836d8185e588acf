"""One request of a run, as the history checker sees it."""

from __future__ import annotations

from dataclasses import dataclass

ISSUE, MINE, COUPON = "issue", "mine", "coupon"
SHOWN_TO_HOLDERS = frozenset({"ISSUED", "REPLAYED", "ALREADY_ISSUED"})
# These attempts certainly changed nothing, and say nothing about the coupon either.
NOT_TRIED = frozenset({
    "TOO_MANY_REQUESTS", "INVALID_REQUEST", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "METHOD_NOT_ALLOWED",
    "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "URI_TOO_LONG", "UNSUPPORTED_MEDIA_TYPE",
})  # fmt: skip
REFUSALS = frozenset({
    "SOLD_OUT", "NOT_OPEN", "PAUSED", "CLOSED", "COUPON_NOT_FOUND", "IDEMPOTENCY_KEY_REUSED",
})  # fmt: skip
KNOWN = SHOWN_TO_HOLDERS | NOT_TRIED | REFUSALS


@dataclass(frozen=True)
class Answered:
    """One request and its response.

    Attributes:
        kind: `issue`; `mine`, the caller's coupons; `coupon`, one coupon's look-up. Others are not checked.
        user: the user.
        coupon_id: the coupon.
        sent_s: a moment before the first byte was sent, in seconds of a clock that all requests share.
        answered_s: a moment after the response was read, or the client gave up, on the same clock.
        code: the response's `code`, but `REPLAYED` where it has `Idempotency-Replayed: true`, and `STALE`
            for a coupon whose `stale` is true. Any code that is not known here, such as
            `SERVICE_UNAVAILABLE` or `NO_ANSWER`, means that the attempt may be executed now, later or never.
        issuance_code: the `code` of the issuance that the response shows; of `mine`, the one of this coupon.
        key: the `Idempotency-Key`, where one was sent.
        remaining: the number that a `coupon` shows.
    """

    kind: str
    user: str
    coupon_id: int
    sent_s: float
    answered_s: float
    code: str
    issuance_code: str | None = None
    key: str | None = None
    remaining: int | None = None

    def __post_init__(self) -> None:
        if not self.sent_s <= self.answered_s:
            raise ValueError(f"sent at {self.sent_s} s, but answered at {self.answered_s} s")

    @property
    def is_unknown(self) -> bool:
        """Whether it is an attempt that may have issued, now or later, and does not say so."""
        return self.kind == ISSUE and self.code not in KNOWN

    @property
    def shows_one(self) -> bool:
        """Whether it says that the user holds an issuance."""
        return self.code in SHOWN_TO_HOLDERS if self.kind == ISSUE else self.issuance_code is not None

    def __str__(self) -> str:
        shown = f" {self.issuance_code}" if self.issuance_code else ""
        kind = "" if self.kind == ISSUE else f" for «{self.kind}»"
        return f"{self.user} got {self.code}{shown}{kind} ({self.sent_s:.3f} to {self.answered_s:.3f} s)"
