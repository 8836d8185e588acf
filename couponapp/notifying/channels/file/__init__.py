"""The file channel: one line a message, for a first try and for tests."""
