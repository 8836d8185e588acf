"""What arrives in X-Forwarded-For behind one proxy and behind two, honest and forged."""

from __future__ import annotations

PEER = "127.0.0.1"  # the last proxy, as gunicorn sees it
CLIENT = "203.0.113.9"
FORGED = "198.51.100.66"
FIRST = "10.0.0.7"  # the first of two proxies, as the second one has appended it

# Lines of X-Forwarded-For as they arrive, and the address that counts.
Cases = dict[str, tuple[list[str], str]]

BEHIND_ONE: Cases = {
    "the client sent none": ([CLIENT], CLIENT),
    "the client sent one": ([f"{FORGED}, {CLIENT}"], CLIENT),
    "the client sent many": ([", ".join([FORGED] * 200 + [CLIENT])], CLIENT),
    "the proxy added a line": ([FORGED, CLIENT], CLIENT),
    "no blank": ([f"{FORGED},{CLIENT}"], CLIENT),
    "blanks and tabs": ([f"{FORGED} ,\t {CLIENT}\t "], CLIENT),
    "the client sent garbage": ([f"<script>, {CLIENT}"], CLIENT),
    "the client sent an empty entry": ([f", ,{CLIENT}"], CLIENT),
    "the client sent the proxy's address": ([f"{PEER}, {CLIENT}"], CLIENT),
    "the client sent a quotation mark": ([f'"{FORGED}, {CLIENT}'], CLIENT),
    "the client sent one at the end": ([f'{FORGED}", {CLIENT}'], CLIENT),
    "the client sent a backslash": ([f'"\\", {CLIENT}'], CLIENT),
    "the client sent no ASCII": ([f"\xff\xe9, {CLIENT}"], CLIENT),
    "IPv6": ([f"{FORGED}, 2001:db8::9"], "2001:db8::9"),
    "IPv6 in another spelling": (["2001:DB8:0:0::0009"], "2001:db8::9"),
    "IPv4 as IPv6": ([f"::ffff:{CLIENT}"], CLIENT),
    "IPv4 with a port": ([f"{CLIENT}:4711"], CLIENT),
    "IPv6 with a port": (["[2001:db8::9]:4711"], "2001:db8::9"),
    "IPv6 in brackets": (["[2001:db8::9]"], "2001:db8::9"),
    # The proxy's own entry is no address. Then the peer's, which nobody can have chosen.
    "unknown": ([f"{FORGED}, unknown"], PEER),
    "asked over a Unix socket": ([f"{FORGED}, unix:"], PEER),
    "appended nothing": ([f"{FORGED},"], PEER),
    "five numbers": (["1.2.3.4.5"], PEER),
    "one number": (["3405803785"], PEER),
    "octal": (["0313.0.0161.011"], PEER),
    "a name": (["localhost"], PEER),
    "an empty header": ([""], PEER),
    "no header": ([], PEER),
}
BEHIND_TWO: Cases = {
    "the client sent none": ([f"{CLIENT}, {FIRST}"], CLIENT),
    "the client sent one": ([f"{FORGED}, {CLIENT}, {FIRST}"], CLIENT),
    "each added a line": ([FORGED, CLIENT, FIRST], CLIENT),
    "the client sent a quotation mark": ([f'"{FORGED}, {CLIENT}, {FIRST}'], CLIENT),
    "the client sent an empty entry": ([f"{FORGED}, , {CLIENT}, {FIRST}"], CLIENT),
    "the first appended nothing": ([f"{FORGED}, , {FIRST}"], PEER),
    "the first appended no address": ([f"{FORGED}, unknown, {FIRST}"], PEER),
    "somebody went past the first": ([FORGED], PEER),
    "IPv6 with ports": ([f"{FORGED}, [2001:db8::9]:4711, [2001:db8::1]:80"], "2001:db8::9"),
    "no header": ([], PEER),
}
