"""The webhook channel against a real receiver: what it sends, what each answer means, where it does not go."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from couponapp.errors import ChannelFailed
from couponapp.local.postgres import free_port
from couponapp.notifying.channels.webhook.addresses import connect, is_public
from couponapp.notifying.channels.webhook.channel import WebhookChannel
from couponapp.notifying.outbox import Notification
from loadtest.testbed.http_receiver import Behaviour, answers, closes_after
from tests.support.receiver import SECRET, Receiver, drip, hang, running_receiver, send_bytes
from tests.support.servers import ROOT

MOMENT = datetime(2026, 11, 23, 2, 36, 58, 796_000, UTC)
NOTIFICATION = Notification(
    outbox_id=7,
    kind="issuance.issued",
    created_at=MOMENT,
    issuance_id=1,
    coupon_id=1,
    coupon_name="첫 구매 감사 5,000원 쿠폰",
    user_id="minji",
    code="MZDA-MQV2-QNJK-7CX8-Z746",
    issued_at=MOMENT,
    expires_at=MOMENT + timedelta(days=30),
)

TORN_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nacce"
ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets go what hangs when the test ends."""
    event = threading.Event()
    yield event
    event.set()


Make = Callable[..., WebhookChannel]


@pytest.fixture
def channel(receiver: Receiver) -> Make:
    def make(*, timeout_s: float = 10.0, private: bool = True, url: str = "", secret: str = SECRET) -> WebhookChannel:
        return WebhookChannel(url or receiver.url, [secret], timeout_s=timeout_s, private=private)

    return make


def failure(channel: WebhookChannel, notification: Notification = NOTIFICATION) -> ChannelFailed:
    with pytest.raises(ChannelFailed) as error:
        channel.send(notification)
    return error.value


def test_an_event_is_sent_as_the_documentation_shows_it(receiver: Receiver, channel: Make) -> None:
    channel().send(NOTIFICATION)
    (request,) = receiver.requests
    documented = re.search(r"```json\n(.*?)```", (ROOT / "docs/events.md").read_text(), re.DOTALL)
    assert documented
    assert request.json == json.loads(documented[1])
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_repeat_has_the_same_id_and_body_and_a_signature_of_its_own(receiver: Receiver, channel: Make) -> None:
    for _ in range(2):
        channel().send(NOTIFICATION)
    first, second = receiver.requests  # the receiver has verified both signatures
    assert first.key == second.key == "issuance_issued_1"
    assert first.body == second.body


def test_a_receiver_that_verifies_catches_a_wrong_secret(channel: Make) -> None:
    # The negative control: the receiver of these tests breaks off when a signature does not fit.
    failure(channel(secret="whsec_" + 8 * "AAAA"))


def test_events_share_a_connection(receiver: Receiver, channel: Make) -> None:
    sender = channel()
    for number in range(5):
        sender.send(replace(NOTIFICATION, issuance_id=number))
    assert (len(receiver.requests), receiver.connections) == (5, 1)


def test_each_thread_has_a_connection_of_its_own(receiver: Receiver, channel: Make) -> None:
    sender = channel()
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda n: sender.send(replace(NOTIFICATION, issuance_id=n)), range(200)))
    assert len(receiver.accepted) == 200
    assert receiver.connections <= 8


def test_a_kept_connection_that_was_closed_is_made_again(receiver: Receiver, channel: Make) -> None:
    def answer_and_close(handler: object) -> None:
        answers(204)(handler)  # type: ignore[arg-type]  # it is one
        handler.close_connection = True  # type: ignore[attr-defined]

    sender = channel()
    receiver.next.append(answer_and_close)
    for _ in range(3):
        sender.send(NOTIFICATION)
    assert (len(receiver.requests), receiver.connections) == (3, 2)


@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_an_answer_that_means_never_is_permanent(receiver: Receiver, channel: Make, status: int) -> None:
    receiver.always = answers(status)
    assert failure(channel()).permanent


@pytest.mark.parametrize("status", [301, 307, 401, 404, 408, 429, 500, 502, 503])
def test_any_other_answer_means_not_now(receiver: Receiver, channel: Make, status: int) -> None:
    receiver.always = answers(status, Location="/elsewhere")
    error = failure(channel())
    assert (error.permanent, error.retry_after_s, str(error)) == (False, None, f"answered {status}")
    assert len(receiver.requests) == 1  # a redirect is not followed


def test_a_receiver_says_how_long_it_wants_to_be_left_alone(receiver: Receiver, channel: Make) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    asked: dict[Behaviour, tuple[float, float]] = {
        answers(429, Retry_After="7"): (7, 7),
        answers(503, Retry_After=later): (60, 100),
        answers(429, Retry_After="9" * 400): (1e8, 1e9),
    }
    for behaviour, (low, high) in asked.items():
        receiver.next.append(behaviour)
        retry_after_s = failure(channel()).retry_after_s
        assert retry_after_s is not None
        assert low <= retry_after_s <= high
    receiver.next.append(answers(429, Retry_After="soon"))
    assert failure(channel()).retry_after_s is None


@pytest.mark.parametrize("behave", [hang, drip])
def test_a_receiver_that_does_not_come_to_an_end_is_cut_off(
    receiver: Receiver, channel: Make, released: threading.Event, behave: Callable[[threading.Event], Behaviour]
) -> None:
    receiver.next.append(behave(released))
    sender = channel(timeout_s=0.5)
    assert str(failure(sender)).startswith("no answer: in ")
    sender.send(NOTIFICATION)  # on a new connection


@pytest.mark.parametrize("torn", [b"HTTP/1.1 200 O", b"HTTP/1.1 204 No Content\r\nX: 1\r\n", TORN_BODY])
def test_a_receiver_that_closes_half_way_has_not_accepted(receiver: Receiver, channel: Make, torn: bytes) -> None:
    receiver.next.append(closes_after(torn))
    assert not failure(channel()).permanent


def test_an_answer_too_many_is_not_taken_for_that_of_the_next_event(receiver: Receiver, channel: Make) -> None:
    sender = channel()
    receiver.next += [send_bytes(ACCEPTED + ACCEPTED), answers(503)]
    sender.send(NOTIFICATION)
    assert str(failure(sender)) == "answered 503"
    assert (len(receiver.requests), receiver.connections) == (2, 2)


def test_an_answer_too_many_that_comes_late_is_not_taken_for_that_of_the_next_event(
    receiver: Receiver, channel: Make, released: threading.Event
) -> None:
    sender, said = channel(), threading.Event()

    def twice(handler: BaseHTTPRequestHandler) -> None:
        send_bytes(ACCEPTED)(handler)
        released.wait(30)
        send_bytes(ACCEPTED)(handler)
        said.set()

    receiver.next += [twice, answers(503)]
    sender.send(NOTIFICATION)
    released.set()
    assert said.wait(30)
    assert str(failure(sender)) == "answered 503"
    assert (len(receiver.requests), receiver.connections) == (2, 2)


def test_a_receiver_that_changes_the_protocol_has_not_accepted(receiver: Receiver, channel: Make) -> None:
    receiver.next.append(send_bytes(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"))
    assert "another protocol" in str(failure(channel()))


def test_a_closed_port_is_a_temporary_failure(channel: Make) -> None:
    error = failure(channel(url=f"http://127.0.0.1:{free_port()}/"))
    assert not error.permanent
    assert "does not answer" in str(error)


def test_a_receiver_that_does_not_speak_tls_is_a_failure_that_may_pass(receiver: Receiver, channel: Make) -> None:
    assert not failure(channel(url=f"https://127.0.0.1:{receiver.port}/", timeout_s=5)).permanent


def test_a_private_address_is_not_connected_to_unless_allowed(receiver: Receiver, channel: Make) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):  # the last two are 127.0.0.1 as well
        error = failure(channel(private=False, url=f"http://{host}:{receiver.port}/"))
        assert "no public address" in str(error), host
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_public_internet_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "203.0.114.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_a_public_address_is_known(address: str) -> None:
    assert is_public(address)


def test_a_name_that_leads_elsewhere_at_a_second_look_is_looked_up_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *rest: object, **more: object) -> object:
        """First the address that was checked, then another."""
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "127.0.0.2", *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with connect("shop.example", receiver.port, timeout_s=5, private=True) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    assert looked_up == ["shop.example"]
