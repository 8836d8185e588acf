"""A coupon's life: create, pause, resume, close, restock, verify, export. And the operators' switches."""
