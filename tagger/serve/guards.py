"""What stands around every answer: token, security headers, access log, figures."""

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tagger.base.log import access
from tagger.serve.settings import ServeSettings

# Without a token, beside the page, which asks for one: that it lives.
_OPEN = ("/healthz", "/readyz")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Figures:
    """What Prometheus asks for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tagger_requests", "Requests", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tagger_request_seconds", "Time of a request", ["route"], registry=self.registry
        )
        self.audio = Counter(
            "tagger_audio_seconds", "Audio that was heard", ["model"], registry=self.registry
        )
        self.inside = Gauge(
            "tagger_requests_inside", "Waiting or computed", ["model"], registry=self.registry
        )


class Guards:
    """Around all routes; plain ASGI, so that bodies pass as they come.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    settings : ServeSettings
        With the token, if there is one.
    figures : Figures
        Of requests.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, figures: Figures) -> None:
        self._app, self._settings, self._figures = app, settings, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if self._is_allowed(scope):
                await self._app(scope, receive, guarded)
            else:
                await _refuse(guarded)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "other")
            self._figures.requests.labels(route, str(status)).inc()
            self._figures.seconds.labels(route).observe(seconds)
            client = scope.get("client") or ("", 0)
            access(scope["method"], scope["path"], status=status, seconds=seconds, client=client[0])

    def _is_allowed(self, scope: Scope) -> bool:
        path, method = scope["path"], scope["method"]
        # What is posted to the page's address is a request of the report's kind.
        is_page = (path == "/" and method in ("GET", "HEAD")) or path.startswith("/page/")
        if is_page or path in _OPEN:
            return True
        return is_token(Headers(scope=scope).get("authorization", ""), self._settings)


def is_token(text: str, settings: ServeSettings) -> bool:
    """Compare ``Bearer TOKEN``, or a bare token, in a time that tells nothing of how near it is."""
    if settings.token is None:
        return True
    given = text.removeprefix("Bearer ").strip()
    return hmac.compare_digest(
        given.encode(errors="surrogatepass"), settings.token.encode(errors="surrogatepass")
    )


async def _refuse(send: Callable[[Any], Awaitable[None]]) -> None:
    body = b'{"error": "this service wants a token; send it as Authorization: Bearer TOKEN"}'
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
