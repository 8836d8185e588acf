"""The e-mail channel: SMTP transport."""
