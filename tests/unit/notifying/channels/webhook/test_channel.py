"""The webhook channel against a real receiver: requests, the meaning of each answer, and refused addresses."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pycurl
import pytest

from couponapp.errors import ChannelFailed
from couponapp.local.postgres import free_port
from couponapp.notifying.channels.webhook import client
from couponapp.notifying.channels.webhook.channel import WebhookChannel
from couponapp.notifying.channels.webhook.client import MAX_BODY, MAX_HEAD, Client
from couponapp.notifying.outbox import Notification
from loadtest.testbed.http_receiver import Behaviour, answers, closes_after
from tests.support.mailbox import certificate
from tests.support.notification import NOTIFICATION
from tests.support.receiver import (
    SECRET,
    Receiver,
    drip,
    hang,
    running_receiver,
    send_byte_by_byte,
    send_bytes,
    send_without_end,
)
from tests.support.servers import ROOT

ACCEPTED = "accepted"
TIMED_OUT = "no answer: timed out after 500 ms"

OK = b"HTTP/1.1 200 OK\r\n"
NEXT = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
WHOLE = [
    (NEXT, ACCEPTED),
    (b"HTTP/1.1 204\n\n", ACCEPTED),
    (OK + b"Content-Length: 2\r\n\r\nok", ACCEPTED),
    (b"HTTP/1.1 503 \xec\x9e\x90\r\ncontent-length: 0\r\n\r\n", "answered 503"),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "answered 304"),
    (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", ACCEPTED),
    (CHUNKED + b"2;why=not\r\nok\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", ACCEPTED),
    (CHUNKED + b"2  \r\nok\r\n0\r\n\r\n", ACCEPTED),
    (HINTS + b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", "answered 410"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + HINTS + CHUNKED + b"0\r\n\r\n", ACCEPTED),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", ACCEPTED),
    (OK + UPGRADE + b"Content-Length: 2\r\n\r\nok", ACCEPTED),
    (b"HTTP/1.1 426 Upgrade Required\r\n" + UPGRADE + b"Content-Length: 0\r\n\r\n", "answered 426"),
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Ends what hangs when the test is over."""
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


def outcome(channel: WebhookChannel) -> str:
    """Send; return «accepted», or the reason of the failure."""
    try:
        channel.send(NOTIFICATION)
    except ChannelFailed as error:
        return str(error)
    return ACCEPTED


# Requests


def test_an_event_is_sent_as_the_documentation_shows_it(receiver: Receiver, channel: Make) -> None:
    channel().send(NOTIFICATION)
    (request,) = receiver.requests
    documented = re.search(r"```json\n(.*?)```", (ROOT / "docs/events.md").read_text(), re.DOTALL)
    assert documented
    assert request.json == json.loads(documented[1])
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "couponapp"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_repeat_has_the_same_id_and_body_and_a_signature_of_its_own(receiver: Receiver, channel: Make) -> None:
    for _ in range(2):
        channel().send(NOTIFICATION)
    first, second = receiver.requests  # the receiver has verified both signatures
    assert first.key == second.key == "issuance_issued_1"
    assert first.body == second.body


def test_a_receiver_that_verifies_catches_a_wrong_secret(channel: Make) -> None:
    # The negative control: the receiver of these tests hangs up when a signature is wrong.
    failure(channel(secret="whsec_" + 8 * "AAAA"))


# Connections


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


def test_a_kept_connection_that_was_closed_is_replaced(receiver: Receiver, channel: Make) -> None:
    def answer_and_close(handler: BaseHTTPRequestHandler) -> None:
        answers(204)(handler)
        handler.close_connection = True

    sender = channel()
    receiver.next.append(answer_and_close)
    for _ in range(3):
        sender.send(NOTIFICATION)
    assert (len(receiver.requests), receiver.connections) == (3, 2)


def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, channel: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    channel().send(NOTIFICATION)
    assert len(receiver.accepted) == 1


# The meaning of answers


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


def test_a_receiver_can_ask_for_a_pause(receiver: Receiver, channel: Make) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    asked: dict[Behaviour, tuple[float, float]] = {
        answers(429, Retry_After="7"): (7, 7),
        answers(429, RETRY_AFTER=" 7 "): (7, 7),
        answers(503, Retry_After=later): (60, 100),
        answers(429, Retry_After="9" * 11): (3_600, 1e9),
    }
    for behaviour, (low, high) in asked.items():
        receiver.next.append(behaviour)
        retry_after_s = failure(channel()).retry_after_s
        assert retry_after_s is not None
        assert low <= retry_after_s <= high
    for nonsense in ("soon", "-5", "9" * 400):
        receiver.next.append(answers(429, Retry_After=nonsense))
        assert failure(channel()).retry_after_s is None
    receiver.next.append(send_bytes(CHUNKED.replace(b"200", b"429") + b"0\r\nRetry-After: 3\r\n\r\n"))  # a trailer
    assert failure(channel()).retry_after_s is None


# Whole answers and others


@pytest.mark.parametrize(("sent", "expected"), WHOLE)
def test_a_whole_answer_counts_at_once_and_the_connection_is_kept(
    receiver: Receiver, channel: Make, sent: bytes, expected: str
) -> None:
    for number, send in enumerate((send_bytes, send_byte_by_byte), 1):
        sender = channel()
        receiver.next.append(send(sent))  # nothing follows, and the connection stays open
        assert [outcome(sender), outcome(sender)] == [expected, ACCEPTED]
        assert receiver.connections == number


@pytest.mark.parametrize(("sent", "_expected"), WHOLE)
def test_an_answer_does_not_count_before_its_last_byte(
    receiver: Receiver, channel: Make, sent: bytes, _expected: str
) -> None:
    sender = channel()
    for end in range(len(sent)):
        receiver.next.append(closes_after(sent[:end]))
        error = failure(sender)
        assert str(error).startswith("no answer: "), sent[:end]
        assert not error.permanent


def test_without_the_check_of_the_head_libcurl_takes_a_torn_one_for_a_whole_one(
    receiver: Receiver, channel: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The negative control of the test above. When this fails, the check may have become superfluous.
    def call_it_whole(self: Client, line: bytes) -> None:
        self._head_is_whole = True

    monkeypatch.setattr(Client, "_read_head", call_it_whole)
    receiver.next.append(closes_after(OK + b"Content-Le"))
    channel().send(NOTIFICATION)


@pytest.mark.parametrize(("sent", "expected"), WHOLE)
def test_surplus_bytes_are_not_taken_for_the_next_answer(
    receiver: Receiver, channel: Make, sent: bytes, expected: str
) -> None:
    other_protocol = b"HTTP/1.1 101 Other\r\n" + UPGRADE + b"\r\n"
    for more in (NEXT, b"H", b"\0", b"\r\n", HINTS, other_protocol, 99_999 * b"x"):
        sender, before = channel(), receiver.connections
        receiver.next += [send_bytes(sent + more), answers(503)]
        assert [outcome(sender), outcome(sender)] == [expected, "answered 503"], more[:20]
        if b"chunked" not in sent:  # libcurl discards what has arrived behind the last chunk, and goes on
            assert receiver.connections == before + 2


@pytest.mark.parametrize("answer", [OK + b"Content-Length: 0\r\n\r\n", CHUNKED + b"0\r\n\r\n"])
def test_surplus_bytes_that_come_late_are_not_taken_for_the_next_answer(
    receiver: Receiver, channel: Make, released: threading.Event, answer: bytes
) -> None:
    sender, sent = channel(), threading.Event()

    def twice(handler: BaseHTTPRequestHandler) -> None:
        send_bytes(answer)(handler)
        released.wait(30)
        send_bytes(answer)(handler)
        sent.set()

    receiver.next += [twice, answers(503)]
    sender.send(NOTIFICATION)
    released.set()
    assert sent.wait(30)
    assert str(failure(sender)) == "answered 503"
    assert (len(receiver.requests), receiver.connections) == (2, 2)


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok, and more",
        OK + b"Connection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"\r\nuntil it is closed",
        OK + b"\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nuntil it is closed",
        OK + b"Transfer-Encoding: identity\r\n\r\nuntil it is closed",
        HINTS + OK + b"\r\nuntil it is closed",
    ],
)
def test_after_an_answer_that_ends_the_connection_another_one_is_opened(
    receiver: Receiver, channel: Make, sent: bytes
) -> None:
    sender = channel()
    receiver.next.append(closes_after(sent))
    assert [outcome(sender), outcome(sender)] == [ACCEPTED, ACCEPTED]
    assert receiver.connections == 2


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Content-Length: two\r\n\r\nok",
        OK + b"Content-Length: -2\r\n\r\nok",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\noks",
        CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
        CHUNKED + b"two\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        OK + b"X: y\r\n" * (MAX_HEAD // 6) + b"\r\n",
        OK + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n",
        HINTS * (MAX_HEAD // len(HINTS)) + NEXT,
    ],
)
def test_what_is_no_http_answer_does_not_count(receiver: Receiver, channel: Make, sent: bytes) -> None:
    receiver.next.append(closes_after(sent))
    error = failure(channel())
    assert not error.permanent
    assert str(error).startswith("no answer: ") or str(error) == "answered 101"


# Bounds


def test_a_head_may_have_so_many_bytes_and_no_more(receiver: Receiver, channel: Make) -> None:
    start, end = b"HTTP/1.1 204 No Content\r\nX: ", b"\r\n\r\n"
    longest = start + b"y" * (MAX_HEAD - len(start) - len(end)) + end
    receiver.next += [send_bytes(longest), send_bytes(longest.replace(b"X: ", b"XX: "))]
    sender = channel()
    assert [outcome(sender), outcome(sender)] == [ACCEPTED, f"no answer: a head of more than {MAX_HEAD} bytes"]


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
def test_a_body_may_have_so_many_bytes_before_the_connection_is_given_up(
    receiver: Receiver, channel: Make, size: int
) -> None:
    sender = channel()
    receiver.next.append(send_bytes(OK + f"Content-Length: {size}\r\n\r\n".encode() + size * b"x"))
    assert [outcome(sender), outcome(sender)] == [ACCEPTED, ACCEPTED]
    assert receiver.connections == (1 if size == MAX_BODY else 2)


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 ", b"O"),
        (OK, b"X: y\r\n"),
        (HINTS + OK + b"X: ", b"y"),
        (b"", HINTS),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
    ],
)
def test_a_head_or_trailer_without_end_is_cut_off_before_the_time_out(
    receiver: Receiver, channel: Make, start: bytes, again: bytes
) -> None:
    receiver.next.append(send_without_end(start, again * 100))
    error = failure(channel(timeout_s=60.0))
    assert "timed out" not in str(error)
    assert not error.permanent


@pytest.mark.parametrize(
    ("head", "again"),
    [(OK + b"\r\n", b"x"), (OK + b"Content-Length: 999999999\r\n\r\n", b"x"), (CHUNKED, b"1\r\nx\r\n")],
)
def test_a_body_without_end_is_cut_off_and_the_status_counts(
    receiver: Receiver, channel: Make, head: bytes, again: bytes
) -> None:
    receiver.next.append(send_without_end(head, again * 100))
    assert outcome(channel(timeout_s=60.0)) == ACCEPTED


def test_a_chunk_without_end_is_cut_off_by_the_time_out(receiver: Receiver, channel: Make) -> None:
    receiver.next.append(send_without_end(CHUNKED + b"5;", b"x" * 100))
    assert outcome(channel(timeout_s=0.5)) == TIMED_OUT


@pytest.mark.parametrize("behave", [hang, drip])
def test_a_receiver_that_does_not_finish_its_answer_is_cut_off(
    receiver: Receiver, channel: Make, released: threading.Event, behave: Callable[[threading.Event], Behaviour]
) -> None:
    receiver.next.append(behave(released))
    sender = channel(timeout_s=0.5)
    began_s = time.monotonic()
    assert str(failure(sender)) == TIMED_OUT
    assert time.monotonic() - began_s < 5.0
    sender.send(NOTIFICATION)  # on a new connection


def test_a_receiver_that_does_not_accept_connections_is_cut_off(channel: Make) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert outcome(channel(url=f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_s=0.5)) == TIMED_OUT
        for one in waiting:
            one.close()


SLOW_LOOK_UP = """
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *n, const char *s, const struct addrinfo *h, struct addrinfo **r)
{
    sleep(4);
    return EAI_FAIL;
}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("cc"), reason="needs Linux and cc")
def test_a_slow_name_look_up_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "slow.c").write_text(SLOW_LOOK_UP)
    library = str(tmp_path / "slow.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "slow.c")], check=True, timeout=60)
    script = (
        "import os, time\n"
        "from couponapp.errors import ChannelFailed\n"
        "from couponapp.notifying.channels.webhook.client import Client\n"
        "began_s = time.monotonic()\n"
        "try:\n"
        "    Client('http://shop.example/', timeout_s=0.3, private=True).post([], b'')\n"
        "except ChannelFailed as error:\n"
        "    print(round(time.monotonic() - began_s, 1), error, flush=True)\n"
        "os._exit(0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={"LD_PRELOAD": library}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    took_s, _, reason = ran.stdout.partition(" ")
    assert float(took_s) < 2.0
    assert reason == "no answer: timed out after 300 ms\n"


def test_a_closed_port_is_a_temporary_failure(channel: Make) -> None:
    error = failure(channel(url=f"http://127.0.0.1:{free_port()}/"))
    assert not error.permanent
    assert "connect" in str(error)


# TLS


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver with a self-signed certificate."""
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate(tmp_path))
    with running_receiver(tls=server_tls) as receiver:
        yield receiver


@pytest.fixture
def trusted(tmp_path: Path, over_tls: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes that certificate trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))


def test_a_receiver_with_an_untrusted_certificate_gets_nothing(over_tls: Receiver, channel: Make) -> None:
    error = failure(channel(url=f"https://localhost:{over_tls.port}/"))
    assert not error.permanent
    assert "certificate" in str(error)
    assert over_tls.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_receiver_with_another_name_in_its_certificate_gets_nothing(over_tls: Receiver, channel: Make) -> None:
    assert "127.0.0.1" in outcome(channel(url=f"https://127.0.0.1:{over_tls.port}/"))
    assert over_tls.requests == []


@pytest.mark.usefixtures("trusted")
def test_events_over_tls_share_a_connection(over_tls: Receiver, channel: Make) -> None:
    sender = channel(url=f"https://localhost:{over_tls.port}/")
    assert [outcome(sender) for _ in range(5)] == [ACCEPTED] * 5
    assert over_tls.connections == 1


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("late_s", [0.0, 0.1])
def test_surplus_bytes_over_tls_are_not_taken_for_the_next_answer(
    over_tls: Receiver, channel: Make, late_s: float
) -> None:
    sender, sent = channel(url=f"https://localhost:{over_tls.port}/"), threading.Event()
    answer = OK + b"Content-Length: 0\r\n\r\n"

    def twice(handler: BaseHTTPRequestHandler) -> None:
        send_bytes(answer if late_s else answer + answer)(handler)
        if late_s:
            time.sleep(late_s)
            send_bytes(answer)(handler)
        sent.set()

    over_tls.next += [twice, answers(503)]
    assert outcome(sender) == ACCEPTED
    assert sent.wait(30)
    assert outcome(sender) == "answered 503"


def test_a_receiver_without_tls_is_a_temporary_failure(receiver: Receiver, channel: Make) -> None:
    assert not failure(channel(url=f"https://127.0.0.1:{receiver.port}/", timeout_s=5)).permanent


# Addresses


def test_a_private_address_is_not_connected_to_unless_allowed(receiver: Receiver, channel: Make) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):  # the last two are 127.0.0.1 as well
        error = failure(channel(private=False, url=f"http://{host}:{receiver.port}/"))
        assert "is not a public address" in str(error), host
    assert receiver.connections == 0


@pytest.fixture
def lead(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Callable[[WebhookChannel, str], None]:
    """Makes the name shop.example lead to some addresses, of which only 127.0.0.1 counts as public."""
    monkeypatch.setattr(client, "is_public", lambda text: text == "127.0.0.1")

    def lead(sender: WebhookChannel, addresses: str) -> None:
        sender._client()._curl.setopt(pycurl.RESOLVE, [f"shop.example:{receiver.port}:{addresses}"])

    return lead


def test_a_name_that_leads_to_a_private_address_later_is_refused_then(
    receiver: Receiver, channel: Make, lead: Callable[[WebhookChannel, str], None]
) -> None:
    sender = channel(private=False, url=f"http://shop.example:{receiver.port}/")
    receiver.always = send_bytes(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    lead(sender, "127.0.0.1")
    assert outcome(sender) == ACCEPTED
    lead(sender, "127.0.0.2")
    assert outcome(sender).startswith("127.0.0.2 is not a public address")
    assert receiver.connections == 1


def test_of_several_addresses_only_public_ones_are_tried(
    receiver: Receiver, channel: Make, lead: Callable[[WebhookChannel, str], None]
) -> None:
    sender = channel(private=False, url=f"http://shop.example:{receiver.port}/")
    lead(sender, "127.0.0.2,127.0.0.1")
    assert outcome(sender) == ACCEPTED
