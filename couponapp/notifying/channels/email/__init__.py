"""The e-mail channel, over SMTP."""
