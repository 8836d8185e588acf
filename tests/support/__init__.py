"""What the tests share: servers that may be broken, models, judges and clients."""
