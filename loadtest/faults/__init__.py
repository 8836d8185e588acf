"""What breaks, under load, and whether the service bears it as promised."""
