"""What is published of a machine and of the settings."""

from __future__ import annotations

from loadtest.results.machine import in_words, machine, publishable, shown_settings


def test_a_machine_is_published_without_the_build_tag_of_its_system() -> None:
    mine = {"system": "Linux 6.12.3-of-somebody-7", "processors": 2}
    assert publishable(mine) == {"system": "Linux 6.12", "processors": 2}
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


def test_a_machine_is_described_in_one_line_with_its_memory_in_gigabytes() -> None:
    described = machine()
    line = in_words({**described, "memory_bytes": 8 * 2**30 - 1, "load_average_before": [0.5, 0.1, 0.1]})
    assert "\n" not in line
    assert ", 8 GB, " in line
    assert line.endswith(f"Python {described['python']}; load average before: 0.5")


def test_addresses_and_directories_of_one_run_are_not_shown_and_neither_is_what_is_no_setting() -> None:
    environ = {
        "COUPON_METRICS_DIR": "var/metrics",
        "COUPON_JWT_JWKS": "https://shop.example/keys",
        "COUPON_WEBHOOK_URL": "https://shop.example/",
        "COUPON_WEBHOOK_SECRET": "whsec_x",
        "DATABASE_URL": "postgresql://u:p@h/d",
        "PATH": "/bin",
        "WEB_CONCURRENCY": "2",
    }
    assert shown_settings(environ) == {"WEB_CONCURRENCY": "2"}
