"""Guards: what bounds a request before it may cost anything. They know no business word."""
