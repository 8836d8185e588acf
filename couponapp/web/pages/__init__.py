"""The server-rendered pages. They work without JavaScript."""
