"""The same crowd for teams that use Locust (https://locust.io), which is not a dependency of this project.

Locust's users wait for their responses (a closed loop), so a stall of the service slows them down and
the latencies do not contain the wait. Use `make load` for a verdict, and this for many machines, TLS and
live charts:

    COUPON_JWT_SECRET=… COUPON_ID=1 locust -f loadtest/load/locustfile.py --host https://coupons.example.com
"""

from __future__ import annotations

import itertools
import os

from locust import HttpUser, between, task

from couponapp.auth import tokens
from couponapp.config import settings

ISSUE = "/api/v1/coupons/{couponId}/issue"
COUPON = "/api/v1/coupons/{couponId}"

# The expected statuses of an event: issued, or refused with a reason.
EXPECTED = (201, 409, 429)
TOKEN_TTL_S = 86_400

COUPON_ID = os.environ.get("COUPON_ID", "1")
SIGNING = {name: value for name, value in os.environ.items() if name.startswith("COUPON_JWT_")}
numbers = itertools.count(1)


class Customer(HttpUser):
    """One user with a token of its own."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Sign a token, as the shop does at login."""
        user = f"locust-{os.getpid()}-{next(numbers)}"
        token = tokens.sign(settings.load(SIGNING), user, ttl_s=TOKEN_TTL_S)
        self.headers = {"Authorization": f"Bearer {token}"}

    @task(70)
    def issue(self) -> None:
        """Try to get the coupon."""
        path = ISSUE.format(couponId=COUPON_ID)
        with self.client.post(path, headers=self.headers, name=ISSUE, catch_response=True) as response:
            if response.status_code in EXPECTED:
                response.success()
            else:
                response.failure(f"HTTP {response.status_code}")

    @task(15)
    def look_up(self) -> None:
        """Look up how many are left."""
        self.client.get(COUPON.format(couponId=COUPON_ID), name=COUPON)

    @task(5)
    def look_at_all(self) -> None:
        """List the coupons on offer."""
        self.client.get("/api/v1/coupons")

    @task(10)
    def mine(self) -> None:
        """List the user's coupons."""
        self.client.get("/api/v1/me/coupons", headers=self.headers)
