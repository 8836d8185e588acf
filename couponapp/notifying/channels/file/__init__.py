"""The file channel."""
