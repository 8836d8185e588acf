"""What sends requests and measures: an open-loop and a closed-loop generator, and two HTTP clients.

It knows no coupon: it gets bytes to send and returns when each answer came. `usage.py` samples what
processes use meanwhile.
"""
