"""The file channel, for demos: one file per notification."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo

from couponapp.errors import ChannelFailed
from couponapp.notifying.messages import render_file
from couponapp.notifying.outbox import Notification


class FileChannel:
    """Writes each notification to a file named after its issuance."""

    name = "file"

    def __init__(self, directory: Path, time_zone: ZoneInfo) -> None:
        self._directory = directory
        self._time_zone = time_zone

    def send(self, notification: Notification) -> None:
        """Write the file. A repeat leaves the existing file as it is.

        Raises:
            ChannelFailed: the file cannot be written.
        """
        # Built from the kind and a number: nothing that a user chose gets into the path.
        path = self._directory / f"{notification.kind}-{notification.issuance_id}.txt"
        draft = path.with_suffix(f".{os.getpid()}.draft")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            draft.write_text(render_file(notification, self._time_zone), encoding="utf-8")
            try:
                os.link(draft, path)  # atomic, and never replaces an earlier file
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise ChannelFailed(f"file channel: {error}") from error
