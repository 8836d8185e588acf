"""First-come-first-served coupon events: exactly N are issued, one per user."""

__version__ = "0.1.0"
