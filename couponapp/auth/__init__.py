"""Authentication: bearer tokens, and the secret or key set that verifies them.

A token is accepted if its signature, audience, issuer and lifetime are valid; its `sub` is the user's id.
A background thread refreshes the key set, so that no request waits for the server that publishes it.
Verified tokens are cached until they expire or the keys change.

This package knows no SQL and no web framework: it turns a token into a user's id or raises
`Unauthenticated`. Why a refusal never says what is wrong: docs/decisions/0008.
"""
