"""What a holder reads: in both languages, with local times, and markup in a name as text."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from couponapp.notifying.messages import render, render_file
from tests.support.notification import NOTIFICATION

SEOUL, UTC = ZoneInfo("Asia/Seoul"), ZoneInfo("UTC")


def test_a_subject_names_the_coupon_once_and_says_it_in_both_languages() -> None:
    subject = render(replace(NOTIFICATION, coupon_name="[추석] {}"), SEOUL).subject
    assert subject == "[[추석] {}] 쿠폰이 발급되었습니다 / Your coupon has been issued"


def test_a_name_is_text_in_the_text_and_escaped_in_the_html() -> None:
    message = render(replace(NOTIFICATION, coupon_name="<b>&</b> {{ code }}"), SEOUL)
    assert message.text.count("<b>&</b> {{ code }}") == 2
    assert message.html.count("&lt;b&gt;&amp;&lt;/b&gt; {{ code }}") >= 2
    assert "<b>" not in message.html


@pytest.mark.parametrize(("zone", "issued"), [(SEOUL, "2026-11-23 11:36:58 KST"), (UTC, "2026-11-23 02:36:58 UTC")])
def test_times_are_in_the_given_zone_which_is_named(zone: ZoneInfo, issued: str) -> None:
    for text in (render(NOTIFICATION, zone).text, render(NOTIFICATION, zone).html, render_file(NOTIFICATION, zone)):
        assert text.count(issued) == 2  # in Korean and in English


def test_a_file_names_its_reader_and_its_subject_in_each_language_before_the_rest() -> None:
    korean, _, english = render_file(NOTIFICATION, SEOUL).partition("--\n")
    name = NOTIFICATION.coupon_name
    assert korean.startswith(f"받는 사람: minji\n제목: [{name}] 쿠폰이 발급되었습니다\n\n쿠폰: {name}\n")
    assert english.startswith(f"To: minji\nSubject: [{name}] Your coupon has been issued\n\nCoupon: {name}\n")
