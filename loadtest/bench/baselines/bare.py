"""A bare Flask JSON route: what the server and the framework alone can do."""

from flask import Flask, Response, jsonify

app = Flask("bare")


@app.route("/livez")
@app.route("/api/v1/coupons/<coupon_id>/issue", methods=["POST"])
def bare(coupon_id: str = "") -> Response:
    """Answer in the usual shape."""
    return jsonify(success=True, code="OK", message="", data=None)
