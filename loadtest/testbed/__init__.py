"""Servers and helpers that load runs, fault runs, benchmarks and tests share.

The whole service on free ports, a standby, PgBouncer, a reverse proxy, relays that delay or drop
answers, a webhook receiver, and a C library that makes disks full and clocks wrong.
Everything listens on loopback and ends with the block that started it.
"""
