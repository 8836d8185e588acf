"""The REST API under `/api/v1`, and its OpenAPI document.

Every response has the one shape of `couponapp.web.responses`. The caller is known by a bearer token;
no view reads a cookie, so none needs a CSRF token. `openapi.json` describes what `views.py` does, and a
test provokes every response that the document names.
"""
