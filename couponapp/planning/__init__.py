"""A coupon's life: create, pause, resume, close, restock, list, export.

Each change is one statement whose row count is the verdict: no row means that the coupon does not exist
or that its state does not allow the change. A coupon and its stock row are created, and restocked, in the
same statement, so that `total = issued + remaining` holds at every moment. Times come from the database's
clock.

This package knows no Flask and does not issue: it and `issuing` meet in the tables `coupons` and
`coupon_stock`.
"""
