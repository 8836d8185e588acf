"""The pages in a real browser against a real server. Whatever the browser complains about fails the test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Response, expect, sync_playwright
from redis import Redis

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.issuing.statement import issue
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from tests.conftest import CHROMIUM
from tests.support.databases import Databases
from tests.support.servers import Web, own_postgres, running_web, service_environ, wait_until

pytestmark = pytest.mark.browser

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(databases: Databases, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One service for all tests here; each makes coupons and users of its own."""
    with Redis.from_url(redis_server_url) as client:
        client.flushdb()
    with (
        databases.fresh() as url,
        running_web(tmp_path_factory.mktemp("pages"), service_environ(url, redis_server_url)) as web,
    ):
        yield web


@pytest.fixture(scope="module")
def database(service: Web) -> Iterator[Pool]:
    """A pool on the service's database."""
    pool = Pool(service.environ["DATABASE_URL"], name="test", max_size=2, timeouts=Timeouts.within(20_000))
    yield pool
    pool.close()


NewCoupon = Callable[..., int]


@pytest.fixture
def offer(database: Pool) -> NewCoupon:
    """Makes a coupon; open now unless told otherwise."""

    def make(name: str = "첫 구매 감사 쿠폰", *, total: int = 10, opens_in_s: float = -60.0) -> int:
        return coupons.create(database, name=name, total=total, opens_at=opens_in_s, closes_at=opens_in_s + 86_400)

    return make


@dataclass
class Watch:
    """What the browser said and did while a test used it."""

    complaints: list[str] = field(default_factory=list)
    posts: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def page(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("response", self._response)

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium says this of failure pages too; `_response` looks at everything else.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def _response(self, response: Response) -> None:
        if response.request.method == "POST":
            self.posts.append(response.url)
        if response.status >= 400 and not response.request.is_navigation_request():
            self.complaints.append(f"{response.status} {response.url}")


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    for context in watch.contexts:
        context.close()
    assert watch.complaints == []


def open_profile(chromium: Browser, web: Web, watch: Watch, user: str = "", **options: Any) -> Page:
    """Opens a page in a browser profile of its own, logged in if a user is named."""
    profile = {"base_url": f"http://127.0.0.1:{web.port}", "locale": "ko-KR", "viewport": DESK, **options}
    context = chromium.new_context(**profile)
    watch.contexts.append(context)
    context.set_default_timeout(10_000)
    if user:
        token = tokens.sign(settings.load(web.environ), user, ttl_s=600)
        context.add_cookies([{"name": "coupon_token", "value": token, "url": str(profile["base_url"])}])
    page = context.new_page()
    watch.page(page)
    return page


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, service: Web, watch: Watch) -> OpenPage:
    """As `open_profile`, on this module's service unless told otherwise."""

    def make(user: str = "", *, web: Web = service, **options: Any) -> Page:
        return open_profile(chromium, web, watch, user, **options)

    return make


def notification(page: Page, words: str) -> None:
    expect(page.locator(".notice")).to_have_text(words)


def ticket(page: Page, name: str) -> Any:
    """A coupon's ticket on the home page, which may be a second behind."""
    found = page.get_by_role("article").filter(has=page.get_by_role("heading", name=name, exact=True))
    wait_until(lambda: page.goto("/") and found.count(), timeout_s=10, what=f"«{name}» is on the home page")
    return found


def issued(database: Pool, coupon_id: int) -> int:
    row = database.fetch_one("SELECT count(*) AS n FROM issuances WHERE coupon_id = %(id)s", {"id": coupon_id})
    assert row is not None
    return int(row["n"])


@pytest.mark.parametrize("javascript", [True, False])
def test_a_visitor_finds_a_coupon_logs_in_gets_it_and_holds_it(
    javascript: bool, open_page: OpenPage, offer: NewCoupon, database: Pool
) -> None:
    name = f"신규 회원 쿠폰 ({'js' if javascript else 'no js'})"
    coupon_id = offer(name, total=1000)
    page = open_page(java_script_enabled=javascript)
    ticket(page, name).get_by_role("button", name="자세히 보기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.locator(".stock")).to_contain_text(re.compile(r"남은 수량\s+1,000\s+/ 1,000"))
    expect(page.get_by_role("progressbar", name="남은 수량")).to_have_attribute("value", "1000")
    page.get_by_role("button", name="로그인하고 쿠폰 받기").click()
    page.get_by_label("사용자 이름").fill("김민지")
    page.get_by_role("main").get_by_role("button", name="로그인").click()
    expect(page).to_have_url(re.compile(rf"/coupons/{coupon_id}$"))
    page.get_by_role("button", name="쿠폰 받기").click()
    expect(page).to_have_url(re.compile(r"/my-coupons$"))
    notification(page, "쿠폰이 발급되었습니다.")
    row = database.fetch_one("SELECT code, user_id FROM issuances WHERE coupon_id = %(id)s", {"id": coupon_id})
    assert row is not None
    assert row["user_id"] == "김민지"
    page.get_by_role("link", name="내 쿠폰").click()
    held = page.get_by_role("article").filter(has_text=name)
    expect(held.locator("code")).to_have_text(row["code"])


def test_the_browser_complains_of_an_inline_style_so_the_check_for_complaints_works(
    open_page: OpenPage, watch: Watch
) -> None:
    page = open_page()
    page.goto("/")
    with page.expect_console_message(lambda message: message.type == "error"):
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
    assert any("Content Security Policy" in complaint for complaint in watch.complaints)
    watch.complaints.clear()


def sell_out(pool: Pool, coupon_id: int) -> None:
    pool.execute("UPDATE coupon_stock SET remaining = 0 WHERE coupon_id = %(id)s", {"id": coupon_id})


def nothing(pool: Pool, coupon_id: int) -> None:
    """Leave the coupon as it is."""


REFUSALS = [
    pytest.param(sell_out, -60.0, "쿠폰이 모두 소진되었습니다.", id="sold out"),
    pytest.param(coupons.pause, -60.0, "쿠폰 발급이 일시 중지되었습니다.", id="paused"),
    pytest.param(coupons.close, -60.0, "쿠폰 발급이 종료되었습니다.", id="closed"),
    pytest.param(nothing, 3600.0, "아직 쿠폰 발급이 시작되지 않았습니다.", id="not open"),
]


@pytest.mark.parametrize(("change", "opens_in_s", "words"), REFUSALS)
def test_a_refusal_is_told_in_words_and_reloading_does_not_try_again(
    change: Callable[[Pool, int], None],
    opens_in_s: float,
    words: str,
    open_page: OpenPage,
    offer: NewCoupon,
    database: Pool,
    watch: Watch,
) -> None:
    coupon_id = offer(opens_in_s=opens_in_s)
    page = open_page("lee")
    page.goto(f"/coupons/{coupon_id}")
    change(database, coupon_id)
    page.get_by_role("button", name="쿠폰 받기").click()
    notification(page, words)
    assert len(watch.posts) == 1
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".notice")).to_have_count(0)
    assert len(watch.posts) == 1
    assert issued(database, coupon_id) == 0


def test_a_second_click_leads_to_the_held_coupon(open_page: OpenPage, offer: NewCoupon, database: Pool) -> None:
    coupon_id = offer()
    page = open_page("park")
    for words in ("쿠폰이 발급되었습니다.", "이미 발급받은 쿠폰입니다."):
        page.goto(f"/coupons/{coupon_id}")
        page.get_by_role("button", name="쿠폰 받기").click()
        expect(page).to_have_url(re.compile(r"/my-coupons$"))
        notification(page, words)
    page.reload()
    expect(page.locator("code")).to_have_count(1)
    assert issued(database, coupon_id) == 1


def test_a_coupon_that_cannot_be_had_has_a_dead_button_and_leads_its_holder_to_my_coupons(
    open_page: OpenPage, offer: NewCoupon, database: Pool
) -> None:
    page = open_page("holder")
    for change, words in ((sell_out, "선착순 마감"), (coupons.pause, "잠시 멈춤"), (coupons.close, "기간 종료")):
        coupon_id = offer()
        held = issue(database, coupon_id, "holder").issuance
        assert held is not None
        change(database, coupon_id)
        page.goto(f"/coupons/{coupon_id}")
        expect(page.get_by_role("button", name=words)).to_be_disabled()
        page.get_by_role("link", name="내 쿠폰에서 보기").click()
        expect(page.locator("code").first).to_have_text(held.code)


def test_the_countdown_runs_to_the_opening_and_then_says_so(open_page: OpenPage, offer: NewCoupon) -> None:
    page = open_page("choi")
    page.clock.install()
    page.goto(f"/coupons/{offer(opens_in_s=90_000)}")
    timer = page.get_by_role("timer")
    expect(timer).to_have_text(re.compile(r"^1일 00:59:\d\d$"))
    page.clock.fast_forward("24:00:00")
    expect(timer).to_have_text(re.compile(r"^00:59:\d\d$"))
    page.clock.fast_forward("01:00:00")
    expect(page.get_by_text("지금 받을 수 있습니다!")).to_be_visible()
    expect(timer).to_be_hidden()
    expect(page.locator(".badge")).to_have_text("진행 중")


def test_without_javascript_the_opening_is_told_as_a_time(
    open_page: OpenPage, offer: NewCoupon, database: Pool
) -> None:
    coupon_id = offer(opens_in_s=3600)
    page = open_page("choi", java_script_enabled=False)
    page.goto(f"/coupons/{coupon_id}")
    opens_at = coupons.show(database, coupon_id)["opens_at"].isoformat()
    expect(page.locator("time").first).to_have_attribute("datetime", opens_at)
    expect(page.locator(".countdown").first).to_be_hidden()
    expect(page.get_by_role("button", name="쿠폰 받기")).to_be_enabled()


@pytest.mark.parametrize("path", ["/coupons/{}/issue", "/login", "/logout"])
def test_a_post_without_the_token_is_refused_even_with_the_visitors_cookies(
    path: str, service: Web, offer: NewCoupon, database: Pool
) -> None:
    coupon_id = offer()
    token = tokens.sign(settings.load(service.environ), "kim", ttl_s=600)
    answer = service.request("POST", path.format(coupon_id), headers={"Cookie": f"coupon_token={token}"})
    assert (answer.status, answer.code) == (400, "INVALID_REQUEST")
    assert "Set-Cookie" not in answer.headers
    assert issued(database, coupon_id) == 0


def test_a_form_with_an_old_token_is_explained_and_leads_back_to_the_coupon(
    open_page: OpenPage, offer: NewCoupon, database: Pool
) -> None:
    coupon_id = offer()
    page = open_page("kim")
    page.goto(f"/coupons/{coupon_id}")
    page.context.clear_cookies(name="coupon_session")
    page.get_by_role("button", name="쿠폰 받기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("잘못된 요청입니다.")
    expect(page.get_by_text("페이지가 더 이상 유효하지 않습니다.")).to_be_visible()
    page.get_by_role("button", name="다시 시도").click()
    page.get_by_role("button", name="쿠폰 받기").click()
    notification(page, "쿠폰이 발급되었습니다.")
    assert issued(database, coupon_id) == 1


def log_in(page: Page, user: str) -> None:
    page.get_by_label("사용자 이름").fill(user)
    page.get_by_role("main").get_by_role("button", name="로그인").click()


def test_logging_out_forgets_the_visitor(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/login")
    log_in(page, "kim")
    expect(page.locator(".who")).to_have_text("kim")
    page.get_by_role("button", name="로그아웃").click()
    expect(page.get_by_role("link", name="로그인")).to_be_visible()
    assert "coupon_token" not in [cookie.get("name") for cookie in page.context.cookies()]
    page.goto("/my-coupons")
    expect(page).to_have_url(re.compile(r"/login\?next="))


def test_logging_in_leads_back_but_never_to_another_site(open_page: OpenPage, offer: NewCoupon, service: Web) -> None:
    back = f"/coupons/{offer()}"
    page = open_page()
    for target in (back, "//example.com", "/\\example.com", "https://example.com/", "javascript:alert(1)"):
        page.goto(f"/login?next={target}")
        log_in(page, "kim")
        expect(page).to_have_url(f"http://127.0.0.1:{service.port}{back if target == back else '/'}")


def test_a_name_that_cannot_be_is_explained_at_its_field(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/login")
    log_in(page, "kim\N{RIGHT-TO-LEFT OVERRIDE}")
    user_field = page.get_by_label("사용자 이름")
    expect(user_field).to_have_attribute("aria-invalid", "true")
    expect(user_field).to_have_accessible_description("1~128자의 보이는 문자만 쓸 수 있습니다.")


def test_a_browser_that_prefers_english_gets_english(open_page: OpenPage, offer: NewCoupon) -> None:
    coupon_id = offer()
    page = open_page("kim", locale="en-GB")
    page.goto(f"/coupons/{coupon_id}")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("main")).to_contain_text("30 days from issue")
    page.get_by_role("button", name="Get the coupon").click()
    notification(page, "The coupon has been issued to you.")


def test_a_browser_that_prefers_neither_gets_korean(open_page: OpenPage) -> None:
    page = open_page(locale="de-DE")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "ko")


def test_my_coupons_goes_on_after_a_full_page(open_page: OpenPage, offer: NewCoupon, database: Pool) -> None:
    held = [issue(database, offer(), "collector").issuance for _ in range(21)]
    codes = [issuance.code for issuance in held if issuance]
    page = open_page("collector")
    page.goto("/my-coupons")
    expect(page.locator("code")).to_have_text(codes[:0:-1])
    page.get_by_role("button", name="더 보기").click()
    expect(page.locator("code")).to_have_text(codes[:1])


def test_an_expired_coupon_is_told_apart(open_page: OpenPage, offer: NewCoupon, database: Pool) -> None:
    for coupon_id in (offer(), offer()):
        issue(database, coupon_id, "late")
    database.execute(
        "UPDATE issuances SET expires_at = now() WHERE id = (SELECT min(id) FROM issuances WHERE user_id = 'late')"
    )
    page = open_page("late")
    page.goto("/my-coupons")
    new, old = page.get_by_role("article").all()
    expect(new).not_to_contain_text("만료됨")
    expect(old).to_contain_text("만료됨")


HOSTILE = [
    "<script>document.body.remove()</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></h1><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "W" * 200,
    "가" * 200,
    "할인 " * 49 + "할인",
    "🎫" * 200,
    "مرحبا بالقسيمة " * 13 + "abc",
    "e" + "\N{COMBINING ACUTE ACCENT}" * 150,
]


def fits(page: Page) -> bool:
    """Nothing reaches beyond the window's side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_hostile_names_are_shown_as_they_are_and_break_no_layout(
    open_page: OpenPage, offer: NewCoupon, database: Pool
) -> None:
    user = HOSTILE[1] + "W" * (128 - len(HOSTILE[1]))
    page = open_page(user, viewport=PHONE)
    for name in HOSTILE:
        coupon_id = offer(name)
        issue(database, coupon_id, user)
        page.goto(f"/coupons/{coupon_id}")
        assert page.locator("h1").text_content() == name
        assert fits(page), name
    page.goto("/my-coupons")
    assert page.locator("h2").all_text_contents() == HOSTILE[::-1]
    assert fits(page)
    ticket(page, HOSTILE[-1])
    assert set(HOSTILE) <= set(page.locator("h2").all_text_contents())
    assert page.locator("img").count() == 1
    assert fits(page)
    page.set_viewport_size({"width": 900, "height": 700})
    assert page.locator(".who").text_content() == user
    assert fits(page)


# What a screen reader cannot name or find its way by.
UNNAMED = """() => {
  const named = (e) => (e.innerText || e.ariaLabel || [...(e.labels || [])].map((l) => l.innerText).join("")).trim();
  const controls = document.querySelectorAll("input:not([type=hidden]), button, select, textarea, progress, a");
  const found = [...controls].filter((e) => e.checkVisibility() && !named(e)).map((e) => e.outerHTML);
  found.push(...[...document.querySelectorAll("img:not([alt])")].map((e) => e.outerHTML));
  for (const one of ["h1", "main", "nav", "title"]) {
    const n = document.querySelectorAll(one).length;
    if (n !== 1) found.push(`${n} × ${one}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) found.push("an id twice");
  return found;
}"""


@dataclass
class Tour:
    """What was seen on every page in every state, on a phone."""

    language: str
    complaints: list[str]
    languages: set[str] = field(default_factory=set)
    too_wide: list[str] = field(default_factory=list)
    unnamed: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module", params=[("", "ko"), ("everyone", "en")], ids=["visitor, Korean", "holder, English"])
def tour(request: pytest.FixtureRequest, chromium: Browser, service: Web, database: Pool) -> Tour:
    user, language = request.param
    watch = Watch()
    tour = Tour(language, watch.complaints)
    page = open_profile(chromium, service, watch, user, viewport=PHONE, locale=language)
    paths = ["/", "/login", "/my-coupons", "/no-such-page", "/coupons/4711"]
    for change in (nothing, sell_out, coupons.pause, coupons.close):
        one = coupons.create(database, name="쿠폰", total=coupons.MAX_TOTAL, opens_at=-60.0, closes_at=3600.0)
        issue(database, one, "everyone")
        change(database, one)
        paths.append(f"/coupons/{one}")
    later = coupons.create(database, name="쿠폰", total=1, opens_at=864_000.0, closes_at=864_001.0)
    for path in [*paths, f"/coupons/{later}"]:
        page.goto(path)
        tour.languages.add(str(page.locator("html").get_attribute("lang")))
        tour.too_wide += [] if fits(page) else [path]
        if unnamed := page.evaluate(UNNAMED):
            tour.unnamed[path] = unnamed
    page.context.close()
    return tour


def test_no_page_makes_the_browser_complain(tour: Tour) -> None:
    assert tour.complaints == []


def test_no_page_scrolls_sideways_on_a_phone(tour: Tour) -> None:
    assert tour.too_wide == []


def test_a_screen_reader_finds_a_name_for_every_control_and_one_heading_per_page(tour: Tour) -> None:
    assert tour.unnamed == {}


def test_every_page_says_which_language_it_is_in(tour: Tour) -> None:
    assert tour.languages == {tour.language}


def test_with_no_coupons_the_home_page_says_so(open_page: OpenPage, environ: dict[str, str], tmp_path: Path) -> None:
    with running_web(tmp_path, environ, processes=1) as web:
        page = open_page(web=web, viewport=PHONE)
        page.goto("/")
        expect(page.get_by_text("지금은 진행 중인 쿠폰이 없습니다.")).to_be_visible()
        assert fits(page)
        page.context.close()  # gunicorn waits for open connections


def test_when_the_database_is_gone_the_click_and_the_pages_say_so(
    open_page: OpenPage, redis_url: str, tmp_path: Path, make_pool: Callable[..., Pool]
) -> None:
    with own_postgres(tmp_path, "fsync=off") as postgres:
        migrations.migrate(postgres.url)
        pool = make_pool(postgres.url, size=1)
        coupon_id = coupons.create(pool, name="쿠폰", total=10, opens_at=-60.0, closes_at=3600.0)
        with running_web(tmp_path, service_environ(postgres.url, redis_url), processes=1) as web:
            page = open_page("kim", web=web)
            page.goto(f"/coupons/{coupon_id}")
            postgres.end()
            page.get_by_role("button", name="쿠폰 받기").click()
            notification(page, "서비스 장애 발생. 잠시 후 다시 시도해주세요.")
            # The coupon is still shown, with its button, as it was a moment ago.
            expect(page.get_by_text("잠시 전 수량입니다.")).to_be_visible()
            expect(page.get_by_role("button", name="쿠폰 받기")).to_be_enabled()
            response = page.goto("/my-coupons")
            assert response is not None
            assert response.status == 503
            expect(page.get_by_role("heading", level=1)).to_have_text("서비스 장애 발생. 잠시 후 다시 시도해주세요.")
            expect(page.get_by_role("button", name="다시 시도")).to_have_attribute("href", "/my-coupons?")
            page.context.close()  # gunicorn waits for open connections
