"""Clients that send slowly, partly or nothing, do not read, or never pause do not affect the others."""

from __future__ import annotations

import fcntl
import http.client
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import psutil
import pytest

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.planning import coupons
from couponapp.server import open_files
from couponapp.storage.pool import Pool, Timeouts
from tests.support.databases import Databases
from tests.support.servers import Answer, Web, running_web, service_environ, wait_until
from tests.support.shape import told

STYLE_SHEET = "/static/vendor/pico-2.1.1.indigo.min.css"
SLOW_EACH = 500
GOOD = 40
# Where a test waits for the end of what clients may take, and how long it waits for that.
SHORT_S = 1
BOUND_S = 20.0
# Long enough to tell that something does not come. A good request takes some milliseconds.
NEVER_S = 2.0

Start = Callable[..., Web]

HALVES = {
    "nothing": b"",
    "half a head": b"GET /api/v1/coupons HTTP/1.1\r\nHost: localhost\r\nAccept: app",
    "half a body": b"POST /api/v1/coupons/1/issue HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    "half a body in chunks": (
        b"POST /api/v1/coupons/1/issue HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"
    ),
}
HALF_A_BODY = HALVES["half a body"]


@pytest.fixture(scope="module")
def environ(databases: Databases, redis_server_url: str) -> Iterator[dict[str, str]]:
    """The environment of every server here, with one coupon in its database: number 1."""
    with databases.fresh() as url:
        pool = Pool(url, name="test", max_size=1, timeouts=Timeouts.within(20_000))
        assert coupons.create(pool, name="쿠폰", total=1000, opens_at=-60.0, closes_at=3600.0) == 1
        pool.close()
        yield service_environ(url, redis_server_url)


@pytest.fixture(scope="module")
def start(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers that are ended with the file; one process unless told otherwise."""
    directory = tmp_path_factory.mktemp("slow")
    with ExitStack() as stack:

        def make(*arguments: str, processes: int = 1, client_timeout_s: int = 300) -> Web:
            full = {**environ, "COUPON_CLIENT_TIMEOUT_S": str(client_timeout_s)}
            return stack.enter_context(running_web(directory, full, processes=processes, arguments=arguments))

        yield make


@pytest.fixture(scope="module")
def web(start: Start) -> Web:
    """A server as it is, two processes, which waits long enough for every test here."""
    return start(processes=2)


@pytest.fixture(scope="module")
def impatient(start: Start) -> Web:
    """A server that waits for nobody longer than a second."""
    return start("--keep-alive", str(SHORT_S), client_timeout_s=SHORT_S)


@pytest.fixture(scope="module")
def stock(start: Start) -> Web:
    """The wrong variant: gunicorn's own gevent worker, with few connections."""
    return start("--worker-class", "gevent", "--worker-connections", "40")


def connect(web: Web, *, receive_buffer: int = 0, send_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    for name, size in ((socket.SO_RCVBUF, receive_buffer), (socket.SO_SNDBUF, send_buffer)):
        if size:
            connection.setsockopt(socket.SOL_SOCKET, name, size)
    connection.settimeout(BOUND_S)
    connection.connect(("127.0.0.1", web.port))
    return connection


@contextmanager
def hanging(web: Web, begin: bytes, number: int) -> Iterator[list[socket.socket]]:
    """So many clients that send this and then nothing more."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(web)) for _ in range(number)]
        for client in clients:
            client.sendall(begin)
        yield clients


def until_closed(client: socket.socket, *, timeout_s: float = BOUND_S) -> bytes:
    """Everything that the server sends until it closes.

    Raises:
        TimeoutError: it does not close.
    """
    client.settimeout(timeout_s)
    received = b""
    try:
        while part := client.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def answer_in(received: bytes) -> Answer:
    """The one answer in what a server has sent."""
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body), received
    return Answer(int(status.split()[1]), headers, body)


def answer_time_s(web: Web, *, timeout_s: float = BOUND_S) -> float:
    """How long a good client waits for its answer, on a connection of its own.

    Raises:
        TimeoutError: it does not come.
    """
    began_s = time.perf_counter()
    with connect(web) as client:
        client.settimeout(timeout_s)
        client.sendall(b"GET /api/v1/coupons HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
    return time.perf_counter() - began_s


# Many of them


@pytest.mark.alone
def test_2000_clients_that_send_half_or_nothing_do_not_slow_the_others(web: Web, environ: dict[str, str]) -> None:
    each = min(SLOW_EACH, open_files.connections(4 * SLOW_EACH, others=200) // 4)
    before = [answer_time_s(web) for _ in range(GOOD)]
    with ExitStack() as stack:
        for half in HALVES.values():
            stack.enter_context(hanging(web, half, each))
        during = [answer_time_s(web) for _ in range(GOOD)]
        issued = [web.request("POST", "/api/v1/coupons/1/issue", token=token(environ, n)) for n in range(GOOD)]
    assert {told(answer) for answer in issued} == {(201, "ISSUED")}
    # They cost memory, not time; the machine may have become busier meanwhile.
    assert median(during) <= 5 * median(before) + 0.05


def token(environ: dict[str, str], number: int) -> str:
    return tokens.sign(settings.load(environ), f"user-{number}", ttl_s=600)


def test_the_same_clients_stall_a_server_of_threads(start: Start) -> None:
    """The negative control, and the reason for the worker class (docs/decisions/0006)."""
    web = start("--worker-class", "gthread", "--threads", "8")
    answer_time_s(web)
    with hanging(web, HALVES["half a head"], SLOW_EACH), pytest.raises(TimeoutError):
        answer_time_s(web, timeout_s=NEVER_S)


def test_when_connections_run_out_the_one_that_waits_longest_for_its_client_is_closed(start: Start, stock: Web) -> None:
    web = start("--worker-connections", "40")
    with hanging(web, HALF_A_BODY, 100) as clients:
        for _ in range(GOOD):
            answer_time_s(web)
        assert until_closed(clients[0]) == b""
        with pytest.raises(TimeoutError):
            until_closed(clients[-1], timeout_s=0.1)
    wait_until(lambda: b"connections are in use" in web.log.read_bytes(), timeout_s=10, what="the log tells of it")
    # The wrong variant: all connections are theirs.
    with hanging(stock, HALF_A_BODY, 100), pytest.raises(TimeoutError):
        answer_time_s(stock, timeout_s=NEVER_S)


# Each of them


def test_a_request_that_does_not_arrive_in_time_is_answered_with_408(impatient: Web) -> None:
    with ExitStack() as stack:
        halves = {what: half for what, half in HALVES.items() if half}
        clients = {what: stack.enter_context(hanging(impatient, half, 1))[0] for what, half in halves.items()}
        for what, client in clients.items():
            assert told(answer_in(until_closed(client))) == (408, "REQUEST_TIMEOUT"), what


def test_a_client_that_sends_nothing_is_closed_without_a_response(impatient: Web) -> None:
    with hanging(impatient, b"", 1) as (client,):
        assert until_closed(client) == b""


def test_a_connection_that_is_kept_open_is_closed_when_no_request_follows(impatient: Web) -> None:
    with hanging(impatient, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 1) as (client,):
        answer = answer_in(until_closed(client))
        assert (answer.status, answer.headers["Connection"]) == (200, "keep-alive")


def test_a_second_request_on_a_connection_has_the_same_bounds(impatient: Web) -> None:
    with hanging(impatient, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 1) as (client,):
        response = http.client.HTTPResponse(client)
        response.begin()
        assert b'"OK"' in response.read()
        client.sendall(HALF_A_BODY)
        assert told(answer_in(until_closed(client))) == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("begin", [b"GET /livez HTTP/1.1\r\nX: ", HALF_A_BODY.replace(b"9", b"9999")])
def test_a_byte_now_and_then_does_not_prolong_the_time(impatient: Web, begin: bytes) -> None:
    with hanging(impatient, begin, 1) as (client,):
        client.settimeout(0.05)

        def refused() -> bytes:
            client.sendall(b"x")
            try:
                return client.recv(65_536)
            except TimeoutError:
                return b""

        answer = wait_until(refused, timeout_s=BOUND_S, what="refused although it goes on")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_wait_for_an_unneeded_body_is_bounded_too(impatient: Web) -> None:
    with hanging(impatient, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", 1) as (client,):
        assert told(answer_in(until_closed(client))) == (408, "REQUEST_TIMEOUT")


def test_a_slow_client_within_the_bounds_is_served(web: Web, environ: dict[str, str]) -> None:
    request = (
        f"POST /api/v1/coupons/1/issue HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token(environ, -1)}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    ).encode()
    with connect(web) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(request)):
            client.sendall(request[position : position + 1])
            time.sleep(0.001)  # so that it arrives in many pieces
        assert told(answer_in(until_closed(client))) == (201, "ISSUED")


def test_the_wait_for_a_client_that_does_not_read_its_response_is_bounded(impatient: Web) -> None:
    # More than the kernel keeps for a client that does not read.
    requests = f"GET {STYLE_SHEET} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 50
    with connect(impatient, receive_buffer=4096) as client:
        client.sendall(requests)
        port = client.getsockname()[1]
        wait_until(lambda: port not in open_ports(impatient), timeout_s=BOUND_S, what="the server has let go")
        assert len(until_closed(client)) < 10 * 84_000


def open_ports(web: Web) -> set[int]:
    """The clients' ports of a server's connections."""
    workers = psutil.Process(web.process.pid).children()
    return {c.raddr.port for worker in workers for c in worker.net_connections("tcp") if c.raddr}


def test_a_body_without_an_end_is_not_read_at_all(impatient: Web, stock: Web) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n"
    with hanging(impatient, head, 1) as (client,):
        assert told(answer_in(until_closed(client))) == (413, "PAYLOAD_TOO_LARGE")
    # The wrong variant answers, and then reads on.
    with hanging(stock, head, 1) as (client,):
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_without_the_bound_a_connection_with_half_a_body_stays_open(stock: Web) -> None:
    """The negative control."""
    with hanging(stock, HALF_A_BODY, 1) as (client,), pytest.raises(TimeoutError):
        until_closed(client, timeout_s=NEVER_S * SHORT_S)


# Never a pause


class Hog(threading.Thread):
    """Sends many requests at once, and counts what has come back."""

    REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    REQUESTS = 1000

    def __init__(self, client: socket.socket) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._lock = threading.Lock()
        self._received = b""

    def run(self) -> None:
        self._client.sendall(self.REQUEST * self.REQUESTS)
        while self._received.count(b"HTTP/1.1 200") < self.REQUESTS:
            assert select.select([self._client], [], [], BOUND_S)[0]
            with self._lock:
                self._received += self._client.recv(1 << 20)

    def delivered(self) -> int:
        """Return how many bytes have arrived by now, whether they have been read or not."""
        with self._lock:
            unread = fcntl.ioctl(self._client, termios.FIONREAD, bytes(4))
            return len(self._received) + int.from_bytes(unread, sys.byteorder)

    def received(self) -> int:
        """Return how many bytes all answers have; to be asked when it has ended."""
        return len(self._received)


def is_served_before_a_hog(web: Web) -> bool:
    # Room for all requests and for many answers: the server need not wait for the hog, however busy the machine is.
    with connect(web, receive_buffer=1 << 20, send_buffer=1 << 17) as greedy, connect(web) as client:
        hog = Hog(greedy)
        hog.start()
        wait_until(hog.delivered, timeout_s=BOUND_S, what="the hog is being served")
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(65_536)
        delivered = hog.delivered()
        hog.join(60)
        return delivered < hog.received()


def test_a_client_that_never_pauses_does_not_block_the_others(impatient: Web, stock: Web) -> None:
    assert is_served_before_a_hog(impatient)
    # The wrong variant serves one greenlet until it has nothing left to read.
    assert not is_served_before_a_hog(stock)
