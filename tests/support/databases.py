"""A PostgreSQL server on which each test gets a database of its own, as a copy of one with all migrations."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.pq import TransactionStatus

from couponapp.storage import migrations

EMPTY = "template0"


class Databases:
    """Creates databases on a server, quickly: by copying files, over one connection that stays open."""

    def __init__(self, url: str) -> None:
        """Connect, and create the database to be copied.

        Args:
            url: a server where this role may create databases.
        """
        self._url = url
        self._admin = psycopg.connect(url, autocommit=True)
        # The process is in the name, because several may share the server.
        self._prefix = f"couponapp_test_{os.getpid()}"
        self._numbers = itertools.count(1)
        self._template = f"{self._prefix}_template"
        self._create(self._template, EMPTY)
        migrations.migrate(with_database(url, self._template))

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """Create a database, yield its URL, drop it after the block, whoever is still connected to it."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._create(name, self._template if migrated else EMPTY)
        try:
            yield with_database(self._url, name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the database that was copied, and disconnect."""
        self._drop(self._template)
        self._admin.close()

    def _create(self, name: str, template: str) -> None:
        # The other strategy writes each page to the log as well.
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')

    def _drop(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        if self._admin.info.transaction_status != TransactionStatus.IDLE:
            # A signal has ended the run in the middle of a statement.
            self._admin.close()
            self._admin = psycopg.connect(self._url, autocommit=True)
        self._admin.execute(statement.encode())


def with_database(url: str, name: str) -> str:
    """Return the address of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def cheapen_logins(url: str) -> None:
    """Give the role of this address a password hash of one round; 4,096 rounds take 4 ms in each new connection."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("SET scram_iterations = 1")
        db.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{urlsplit(url).password}'".encode())
