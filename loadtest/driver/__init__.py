"""What sends requests and measures: an open-loop and a closed-loop generator, and two HTTP clients.

It knows no coupon: it gets bytes to send and returns when each response came. `usage.py` samples what
processes use meanwhile, `process.py` gives a generator an interpreter of its own, `background.py`
runs a function in a thread for the length of a block. Nothing here imports another part of loadtest.
"""
