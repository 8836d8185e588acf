"""Servers and tools that load runs, fault runs, benchmarks and tests share.

The whole service on free ports, a standby, PgBouncer, a reverse proxy, proxies that delay or drop
responses, a webhook receiver, and a C library that makes disks full and clocks wrong.
Everything listens on loopback and ends with the block that started it.
"""
