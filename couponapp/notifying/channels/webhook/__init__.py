"""The webhook channel: signed POST requests (Standard Webhooks) to an address of the shop."""
