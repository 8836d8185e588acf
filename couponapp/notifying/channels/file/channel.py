"""The file channel: for demos."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo

from couponapp.errors import ChannelFailed
from couponapp.notifying.messages import render_file
from couponapp.notifying.outbox import Notification


class FileChannel:
    """Leaves each message as one file, named by its issuance."""

    name = "file"

    def __init__(self, directory: Path, time_zone: ZoneInfo) -> None:
        self._directory = directory
        self._time_zone = time_zone

    def send(self, notification: Notification) -> None:
        """Write the message; a repeat finds the file and leaves it as it is.

        Raises:
            ChannelFailed: the file cannot be written now.
        """
        # The kind is one of ours and the id a number: nothing of the user's gets into the name.
        path = self._directory / f"{notification.kind}-{notification.issuance_id}.txt"
        draft = path.with_suffix(f".{os.getpid()}.draft")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            draft.write_text(render_file(notification, self._time_zone), encoding="utf-8")
            try:
                os.link(draft, path)  # whole or not at all, and never over an earlier one
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise ChannelFailed(f"file channel: {error}") from error
