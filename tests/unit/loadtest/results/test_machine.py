"""What is published of a machine and of the settings."""

from __future__ import annotations

from loadtest.results.machine import publishable, shown_settings


def test_a_machine_is_published_without_the_build_tag_of_its_system() -> None:
    machine = {"system": "Linux 6.12.3-of-somebody-7", "processors": 2}
    assert publishable(machine) == {"system": "Linux 6.12", "processors": 2}
    assert publishable({"system": "Other"}) == {"system": "Other"}


def test_secrets_and_addresses_are_not_among_the_settings() -> None:
    shown = shown_settings(
        {
            "COUPON_JWT_SECRET": "s",
            "COUPON_SECRET_KEY": "k",
            "COUPON_RQ_URL": "redis://:p@h",
            "COUPON_LIMIT_USER": "5/minute",
        }
    )
    assert shown == {"COUPON_LIMIT_USER": "5/minute"}
