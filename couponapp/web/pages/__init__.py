"""The server-rendered pages.

They work without JavaScript; every form post ends in a redirect. The visitor is known by a cookie with
the same kind of token as the API's, so forms carry a CSRF token. A page that issues calls the same
method as the API.
"""
