"""Puts the authorizer's figures on every response of a FastAPI application: app.middleware("http")(farebox_headers).

They come with the Lambda event (Mangum: request.scope["aws.event"]) or as x-farebox-* headers that the integration maps. Trust
the headers only if nobody but the gateway can reach the application.
"""

HEADERS = {
    "limit": "X-RateLimit-Limit", "remaining": "X-RateLimit-Remaining", "reset": "X-RateLimit-Reset",
    "warning": "X-RateLimit-Warning", "ratelimit": "RateLimit", "ratelimit_policy": "RateLimit-Policy",
    "quota_limit": "X-Quota-Limit", "quota_used": "X-Quota-Used", "quota_reset": "X-Quota-Reset", "cost": "X-Farebox-Cost",
}


async def farebox_headers(request, call_next):
    event = request.scope.get("aws.event") or {}
    figures = (event.get("requestContext") or {}).get("authorizer")
    if figures:
        figures = figures.get("lambda", figures)  # an HTTP API puts them one level deeper
    response = await call_next(request)
    for figure, header in HEADERS.items():
        name = "x-farebox-" + figure.replace("_", "-")
        value = figures.get(figure) if figures else request.headers.get(name)
        if value:
            response.headers[header] = str(value)
    return response
