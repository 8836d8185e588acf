"""The contract's HTTP table: statuses, headers, words, pages of a list, and what an outage looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.issuing.statement import issue
from couponapp.local.postgres import free_port
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.servers import service_environ
from tests.support.shape import shape, told

NewCoupon = Callable[..., int]
MakeApp = Callable[..., Flask]
Bearer = Callable[[str], dict[str, str]]

TOO_MANY = "요청이 너무 많습니다. 잠시 후 다시 시도해주세요."
OUTAGE = "서비스 장애 발생. 잠시 후 다시 시도해주세요."
ENGLISH = {"Accept-Language": "en-GB,en;q=0.9,ko;q=0.5"}


@pytest.fixture
def post(client: FlaskClient, bearer: Bearer) -> Callable[..., TestResponse]:
    """One attempt to issue, by a user."""

    def send(coupon_id: int, user: str = "kim", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(f"/api/v1/coupons/{coupon_id}/issue", headers={**bearer(user), **named})

    return send


Post = Callable[..., TestResponse]


# Issuing


def test_issued_is_201_with_the_issuance(post: Post, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(name="치킨 쿠폰")
    response = post(coupon_id)
    assert told(response) == (201, "ISSUED")
    data = shape(response)["data"]
    assert list(data) == ["issuanceId", "couponId", "couponName", "code", "issuedAt", "expiresAt"]
    assert (data["couponId"], data["couponName"]) == (coupon_id, "치킨 쿠폰")
    assert (when(data["expiresAt"]) - when(data["issuedAt"])).days == 30


def when(text: str) -> datetime:
    """RFC 3339, in UTC."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def test_the_location_of_an_issuance_leads_to_it(
    post: Post, client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon
) -> None:
    response = post(new_coupon())
    found = client.get(response.headers["Location"], headers=bearer("kim"))
    assert told(found) == (200, "OK")
    assert shape(found)["data"] == shape(response)["data"]


def test_already_issued_is_409_with_what_the_user_holds(post: Post, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=1)
    first, again = post(coupon_id), post(coupon_id)
    assert told(again) == (409, "ALREADY_ISSUED")
    assert shape(again)["data"] == shape(first)["data"]
    assert "Location" not in again.headers


def test_sold_out_closed_and_paused_are_409_without_data(post: Post, new_coupon: NewCoupon, pool: Pool) -> None:
    paused, closed = new_coupon(), new_coupon()
    coupons.pause(pool, paused)
    coupons.close(pool, closed)
    ended = new_coupon(opens_in_s=-20, closes_in_s=-10)
    cases = {new_coupon(total=0): "SOLD_OUT", paused: "PAUSED", closed: "CLOSED", ended: "CLOSED"}
    for coupon_id, code in cases.items():
        response = post(coupon_id)
        assert told(response) == (409, code)
        assert shape(response)["data"] is None


def test_not_open_is_409_and_tells_when_to_come_back(post: Post, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(opens_in_s=100)
    response = post(coupon_id)
    assert told(response) == (409, "NOT_OPEN")
    opens_at = when(shape(response)["data"]["opensAt"])
    assert abs((opens_at - coupons.show(pool, coupon_id)["opens_at"]).total_seconds()) < 0.001
    assert 1 <= int(response.headers["Retry-After"]) <= 100


def test_an_unknown_coupon_is_404(post: Post) -> None:
    assert told(post(4711)) == (404, "COUPON_NOT_FOUND")


def test_without_a_token_it_is_401_and_says_what_is_wanted(client: FlaskClient, new_coupon: NewCoupon) -> None:
    response = client.post(f"/api/v1/coupons/{new_coupon()}/issue")
    assert told(response) == (401, "UNAUTHENTICATED")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="couponapp"'


def test_the_same_key_gets_the_first_201_again_and_says_so(post: Post, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    first, again = (post(coupon_id, Idempotency_Key="key-1") for _ in range(2))
    assert told(first) == told(again) == (201, "ISSUED")
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert shape(first) == shape(again)
    assert first.headers["Location"] == again.headers["Location"]


def test_the_same_key_on_another_coupon_is_422(post: Post, new_coupon: NewCoupon) -> None:
    post(new_coupon(), Idempotency_Key="key-1")
    other = new_coupon()
    assert told(post(other, Idempotency_Key="key-1")) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert told(post(other, "lee", Idempotency_Key="key-1")) == (201, "ISSUED")


# Words


def test_messages_are_korean_unless_english_is_preferred(post: Post, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=0)
    words = {
        language: (shape(post(coupon_id, Accept_Language=language))["message"])
        for language in ("", "ko", "ko-KR,ko;q=0.9,en;q=0.8", "fr", "*", "en", "en-US", "fr,en;q=0.5", "en,ko;q=0.9")
    }
    korean, english = "쿠폰이 모두 소진되었습니다.", "The coupon is sold out."
    assert list(words.values()) == [korean] * 5 + [english] * 4
    response = post(coupon_id, Accept_Language="en")
    assert (response.headers["Content-Language"], response.headers["Vary"]) == ("en", "Accept-Language")


def test_korean_is_readable_in_the_raw_answer(post: Post, new_coupon: NewCoupon) -> None:
    assert "쿠폰이 모두 소진되었습니다.".encode() in post(new_coupon(total=0)).data


def test_no_answer_is_kept_by_a_cache(client: FlaskClient, post: Post, new_coupon: NewCoupon) -> None:
    for response in (post(new_coupon()), client.get("/api/v1/coupons"), client.get("/nowhere")):
        assert response.headers["Cache-Control"] == "no-store"


# Coupons


def test_a_coupon_is_public_and_tells_what_is_left(client: FlaskClient, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(total=5, name="치킨 쿠폰")
    issue(pool, coupon_id, "kim")
    response = client.get(f"/api/v1/coupons/{coupon_id}")
    assert told(response) == (200, "OK")
    data = shape(response)["data"]
    times = {name: when(data.pop(name)) for name in ("opensAt", "closesAt", "asOf")}
    assert times["opensAt"] < times["asOf"] < times["closesAt"]
    assert data == {
        "couponId": coupon_id,
        "name": "치킨 쿠폰",
        "status": "OPEN",
        "total": 5,
        "remaining": 4,
        "validDays": 30,
        "stale": False,
    }


def test_a_coupons_status_is_what_an_attempt_would_meet(client: FlaskClient, new_coupon: NewCoupon, pool: Pool) -> None:
    paused, closed = new_coupon(), new_coupon()
    coupons.pause(pool, paused)
    coupons.close(pool, closed)
    expected = {
        new_coupon(): "OPEN",
        new_coupon(opens_in_s=100): "SCHEDULED",
        new_coupon(total=0): "SOLD_OUT",
        paused: "PAUSED",
        closed: "CLOSED",
        new_coupon(opens_in_s=-20, closes_in_s=-10): "CLOSED",
    }
    found = {number: shape(client.get(f"/api/v1/coupons/{number}"))["data"]["status"] for number in expected}
    assert found == expected


def test_the_list_holds_what_runs_or_is_to_come(client: FlaskClient, new_coupon: NewCoupon, pool: Pool) -> None:
    running, coming, closed = new_coupon(), new_coupon(opens_in_s=100), new_coupon()
    coupons.close(pool, closed)
    new_coupon(opens_in_s=-20, closes_in_s=-10)
    response = client.get("/api/v1/coupons")
    assert [coupon["couponId"] for coupon in shape(response)["data"]["coupons"]] == [coming, running]


# What one holds


def pages_of(client: FlaskClient, headers: dict[str, str], limit: int) -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        response = client.get("/api/v1/me/coupons", query_string=query, headers=headers)
        assert told(response) == (200, "OK")
        data = shape(response)["data"]
        yield data["issuances"]
        cursor = data["nextCursor"]


@pytest.fixture
def held(pool: Pool, new_coupon: NewCoupon) -> list[int]:
    """Seven issuances of kim, newest first; lee got one of each coupon in between."""
    ids = []
    for _ in range(7):
        coupon_id = new_coupon()
        attempt = issue(pool, coupon_id, "kim")
        issue(pool, coupon_id, "lee")
        assert attempt.issuance is not None
        ids.append(attempt.issuance.id)
    return ids[::-1]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_the_pages_of_a_list_hold_everything_once_newest_first(
    client: FlaskClient, bearer: Bearer, held: list[int], limit: int
) -> None:
    pages = list(pages_of(client, bearer("kim"), limit))
    assert [issuance["issuanceId"] for page in pages for issuance in page] == held
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


def test_what_is_issued_while_somebody_leafs_through_moves_nothing(
    client: FlaskClient, bearer: Bearer, held: list[int], pool: Pool, new_coupon: NewCoupon
) -> None:
    pages = pages_of(client, bearer("kim"), 3)
    seen = next(pages)
    issue(pool, new_coupon(), "kim")
    for page in pages:
        seen += page
    assert [issuance["issuanceId"] for issuance in seen] == held


def test_a_page_has_20_unless_told_otherwise(
    client: FlaskClient, bearer: Bearer, pool: Pool, new_coupon: NewCoupon
) -> None:
    for _ in range(21):
        issue(pool, new_coupon(), "kim")
    data = shape(client.get("/api/v1/me/coupons", headers=bearer("kim")))["data"]
    assert len(data["issuances"]) == 20
    assert data["nextCursor"]


def test_who_holds_nothing_gets_an_empty_list(client: FlaskClient, bearer: Bearer, held: list[int]) -> None:
    assert held
    data = shape(client.get("/api/v1/me/coupons", headers=bearer("park")))["data"]
    assert data == {"issuances": [], "nextCursor": None}


def test_somebody_elses_cursor_shows_only_ones_own(client: FlaskClient, bearer: Bearer, held: list[int]) -> None:
    cursor = shape(client.get("/api/v1/me/coupons?limit=2", headers=bearer("kim")))["data"]["nextCursor"]
    response = client.get("/api/v1/me/coupons", query_string={"cursor": cursor}, headers=bearer("lee"))
    shown = {issuance["issuanceId"] for issuance in shape(response)["data"]["issuances"]}
    assert shown
    assert not shown & set(held)


def test_an_issuance_is_found_by_its_holder_only(client: FlaskClient, bearer: Bearer, held: list[int]) -> None:
    path = f"/api/v1/me/coupons/{held[0]}"
    assert told(client.get(path, headers=bearer("kim"))) == (200, "OK")
    theirs, nobodys = client.get(path, headers=bearer("lee")), client.get(f"{path}999", headers=bearer("lee"))
    assert told(theirs) == told(nobodys) == (404, "NOT_FOUND")
    assert theirs.data == nobodys.data


# Limits


@pytest.fixture
def limited(make_app: MakeApp, environ: dict[str, str]) -> Callable[..., FlaskClient]:
    """The service with other limits."""
    return lambda **changes: make_app(settings.load({**environ, **changes})).test_client()


def attempt(client: FlaskClient, coupon_id: int, headers: dict[str, str]) -> tuple[int, str]:
    return told(client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=headers))


# A day is a window that no test straddles by chance.
def test_beyond_the_limit_it_is_429_in_the_incident_reports_words(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client = limited(COUPON_LIMIT_USER="2/day")
    path = f"/api/v1/coupons/{new_coupon()}/issue"
    assert [client.post(path, headers=bearer("kim")).status_code for _ in range(2)] == [201, 409]
    response = client.post(path, headers=bearer("kim"))
    assert told(response) == (429, "TOO_MANY_REQUESTS")
    assert shape(response)["message"] == TOO_MANY
    assert 86_000 < int(response.headers["Retry-After"]) <= 86_401  # rounded up
    english = client.post(path, headers={**bearer("kim"), **ENGLISH})
    assert shape(english)["message"] == "Too many requests. Please try again shortly."


def test_one_users_limit_is_nobody_elses(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client, coupon_id = limited(COUPON_LIMIT_USER="1/day"), new_coupon()
    found = [attempt(client, coupon_id, bearer(user)) for user in ("kim", "kim", "lee")]
    assert found == [(201, "ISSUED"), (429, "TOO_MANY_REQUESTS"), (201, "ISSUED")]


def test_the_limit_of_all_together_counts_everybody(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client, coupon_id = limited(COUPON_LIMIT_GLOBAL="2/day"), new_coupon()
    found = [attempt(client, coupon_id, bearer(user))[0] for user in ("kim", "lee", "park")]
    assert found == [201, 201, 429]


def test_the_limit_of_a_process_counts_what_comes_to_it(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    first, second = limited(COUPON_LIMIT_PROCESS="2/day"), limited(COUPON_LIMIT_PROCESS="2/day")
    coupon_id = new_coupon()
    assert [attempt(first, coupon_id, bearer("kim"))[0] for _ in range(3)] == [201, 409, 429]
    assert attempt(second, coupon_id, bearer("kim"))[0] == 409


def test_early_clicks_use_up_no_limit(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client = limited(COUPON_LIMIT_USER="1/day", COUPON_LIMIT_GLOBAL="1/day", COUPON_LIMIT_PROCESS="1/day")
    early, running = new_coupon(opens_in_s=100), new_coupon()
    assert [attempt(client, early, bearer("kim")) for _ in range(20)] == [(409, "NOT_OPEN")] * 20
    assert attempt(client, running, bearer("kim")) == (201, "ISSUED")
    # The negative control: that one did count.
    assert attempt(client, running, bearer("kim")) == (429, "TOO_MANY_REQUESTS")


def test_a_coupon_that_is_not_there_uses_up_no_limit(
    limited: Callable[..., FlaskClient], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client = limited(COUPON_LIMIT_USER="1/day")
    for _ in range(5):
        assert attempt(client, 4711, bearer("kim")) == (404, "COUPON_NOT_FOUND")
    assert attempt(client, new_coupon(), bearer("kim")) == (201, "ISSUED")


def test_looking_is_not_limited(limited: Callable[..., FlaskClient], bearer: Bearer) -> None:
    client = limited(COUPON_LIMIT_USER="1/day", COUPON_LIMIT_GLOBAL="1/day", COUPON_LIMIT_PROCESS="1/day")
    for _ in range(5):
        assert client.get("/api/v1/me/coupons", headers=bearer("kim")).status_code == 200
        assert client.get("/api/v1/coupons").status_code == 200


# Outages


@pytest.fixture
def without_postgres(make_app: MakeApp, redis_url: str) -> Flask:
    """The service, where nothing listens at PostgreSQL's address."""
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    return make_app(settings.load(service_environ(nowhere, redis_url, COUPON_DEADLINE_MS="100")))


def bearer_of(app: Flask) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.sign(app.extensions['couponapp'].settings, 'kim', ttl_s=60)}"}


def test_without_postgresql_every_question_is_503_in_the_incident_reports_words(without_postgres: Flask) -> None:
    client, headers = without_postgres.test_client(), bearer_of(without_postgres)
    answers = [
        client.post("/api/v1/coupons/1/issue", headers=headers),
        client.get("/api/v1/coupons"),
        client.get("/api/v1/coupons/1"),
        client.get("/api/v1/me/coupons", headers=headers),
        client.get("/api/v1/me/coupons/1", headers=headers),
    ]
    for response in answers:
        assert told(response) == (503, "SERVICE_UNAVAILABLE")
        assert shape(response)["message"] == OUTAGE
        assert shape(response)["data"] is None
        assert 1 <= int(response.headers["Retry-After"]) <= 5
    english = shape(client.get("/api/v1/coupons", headers=ENGLISH))["message"]
    assert english == "The service is temporarily unavailable. Please try again shortly."


def test_without_postgresql_a_browser_gets_a_503_page(without_postgres: Flask) -> None:
    response = without_postgres.test_client().get("/", headers={"Accept": "text/html"})
    assert (response.status_code, response.mimetype) == (503, "text/html")
    assert OUTAGE in response.get_data(as_text=True)
    assert response.headers["Retry-After"]


def test_the_wait_after_a_503_is_jittered(without_postgres: Flask) -> None:
    client = without_postgres.test_client()
    first = client.get("/readyz").headers["Retry-After"]
    assert any(client.get("/readyz").headers["Retry-After"] != first for _ in range(11))


def test_without_postgresql_the_process_is_alive_but_not_ready(without_postgres: Flask) -> None:
    client = without_postgres.test_client()
    assert told(client.get("/livez")) == (200, "OK")
    ready = client.get("/readyz")
    assert told(ready) == (503, "NOT_READY")
    assert shape(ready)["data"] == {"postgresql": "down", "redis": "up"}


def test_bad_requests_are_told_apart_even_without_postgresql(without_postgres: Flask) -> None:
    client, headers = without_postgres.test_client(), bearer_of(without_postgres)
    assert told(client.post("/api/v1/coupons/1/issue")) == (401, "UNAUTHENTICATED")
    assert told(client.post("/api/v1/coupons/0/issue", headers=headers)) == (404, "COUPON_NOT_FOUND")
    assert told(client.post("/api/v1/coupons/1/issue", data="{", headers=headers)) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_without_redis_issuing_goes_on(
    make_app: MakeApp, environ: dict[str, str], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    client = make_app(settings.load({**environ, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})).test_client()
    coupon_id = new_coupon(total=2)
    found = [attempt(client, coupon_id, bearer(user)) for user in ("kim", "kim", "lee", "park")]
    assert found == [(201, "ISSUED"), (409, "ALREADY_ISSUED"), (201, "ISSUED"), (409, "SOLD_OUT")]


def test_without_redis_each_process_goes_on_limiting_by_itself(
    make_app: MakeApp, environ: dict[str, str], bearer: Bearer, new_coupon: NewCoupon
) -> None:
    changes = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "COUPON_LIMIT_USER": "2/day"}
    client, coupon_id = make_app(settings.load({**environ, **changes})).test_client(), new_coupon()
    assert [attempt(client, coupon_id, bearer("kim"))[0] for _ in range(4)] == [201, 409, 429, 429]


def test_without_redis_the_process_is_ready_and_says_what_is_missing(
    make_app: MakeApp, environ: dict[str, str]
) -> None:
    client = make_app(settings.load({**environ, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})).test_client()
    response = client.get("/readyz")
    assert told(response) == (200, "READY")
    assert shape(response)["data"] == {"postgresql": "up", "redis": "down"}
