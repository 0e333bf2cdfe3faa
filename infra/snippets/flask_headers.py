"""Puts the authorizer's figures on every response of a Flask application: app.after_request(farebox_headers).

They come with the Lambda event (apig-wsgi: environ["apig_wsgi.full_event"]) or as x-farebox-* headers that the integration maps.
Trust the headers only if nobody but the gateway can reach the application.
"""

from flask import request

HEADERS = {
    "limit": "X-RateLimit-Limit", "remaining": "X-RateLimit-Remaining", "reset": "X-RateLimit-Reset",
    "warning": "X-RateLimit-Warning", "ratelimit": "RateLimit", "ratelimit_policy": "RateLimit-Policy",
    "quota_limit": "X-Quota-Limit", "quota_used": "X-Quota-Used", "quota_reset": "X-Quota-Reset", "cost": "X-Farebox-Cost",
}


def farebox_headers(response):
    event = request.environ.get("apig_wsgi.full_event") or {}
    figures = (event.get("requestContext") or {}).get("authorizer")
    if figures:
        figures = figures.get("lambda", figures)  # an HTTP API puts them one level deeper
    for figure, header in HEADERS.items():
        name = "x-farebox-" + figure.replace("_", "-")
        value = figures.get(figure) if figures else request.headers.get(name)
        if value:
            response.headers[header] = str(value)
    return response
