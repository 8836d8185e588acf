"""Who a caller is: bearer tokens and the key sets that verify them.

A token is accepted when its signature, audience, issuer and lifetime hold; its `sub` is the user's id.
A key set is refreshed by a background thread, so no request waits for the address it comes from.
Verified tokens are cached until they expire or the keys change.

This package knows no SQL and no web framework: it turns text into a user's id or raises
`Unauthenticated`.
"""
