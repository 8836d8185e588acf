"""What ours is measured against: a bare route, and the usual way to do it."""
