"""The service with one route more, which tells what the service takes for the client's address."""

from flask import Response, jsonify, request

from wsgi import app


@app.get("/_address")
def address() -> Response:
    """As every view sees it."""
    return jsonify(address=request.remote_addr, scheme=request.scheme, path=request.path, root=request.script_root)
