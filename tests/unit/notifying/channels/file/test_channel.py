"""The file channel: one file per issuance, written whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from couponapp.errors import ChannelFailed
from couponapp.notifying.channels.file.channel import FileChannel
from tests.support.notification import NOTIFICATION

SEOUL = ZoneInfo("Asia/Seoul")


def test_a_repeat_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    channel = FileChannel(tmp_path / "new", SEOUL)
    channel.send(NOTIFICATION)
    (path,) = (tmp_path / "new").iterdir()
    first = path.read_text(encoding="utf-8")
    channel.send(replace(NOTIFICATION, coupon_name="renamed"))
    assert list((tmp_path / "new").iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == first


def test_nothing_that_a_user_chose_gets_into_the_path(tmp_path: Path) -> None:
    FileChannel(tmp_path, SEOUL).send(replace(NOTIFICATION, user_id="../../kim", coupon_name="/etc/passwd"))
    assert [path.name for path in tmp_path.iterdir()] == [f"issuance.issued-{NOTIFICATION.issuance_id}.txt"]


def test_a_directory_that_cannot_be_used_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ChannelFailed) as failure:
        FileChannel(tmp_path / "taken", SEOUL).send(NOTIFICATION)
    assert not failure.value.permanent
