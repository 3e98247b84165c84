"""A server that answers the page as the service does, with scores that are known beforehand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np

PAGE = Path(__file__).parents[2] / "tagger" / "serve" / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
TAGS = ["guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast"]
TAGS += ["piano", "ambient", "beat", "violin", "vocal", "synth", "classic, old", "no vocals"]
TAGS += [f"instrument {number}" for number in range(len(TAGS), 50)]
SECONDS, WINDOW, RATE = 20.0, 3.0, 16000
THRESHOLDS = [0.5 if tag != "slow" else 0.35 for tag in TAGS]


def taggram() -> np.ndarray:
    """Windows that begin each second: guitar plays from 2 s to 8 s and from 12 s to 17 s."""
    times = np.arange(18)
    rng = np.random.default_rng(3)
    scores = rng.uniform(0, 0.06, (len(times), len(TAGS)))
    scores[:, 0] = np.where(
        ((times >= 2) & (times <= 5)) | ((times >= 12) & (times <= 14)), 0.9, 0.2
    )
    for tag in range(1, 14):
        wave = 0.5 + 0.5 * np.sin(times * (0.2 + 0.09 * tag) + tag)
        scores[:, tag] = wave * (0.85 - 0.06 * tag)
    return scores.round(4)


@dataclass
class Seen:
    """What was asked of the server."""

    names: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    live_tokens: list[str] = field(default_factory=list)
    live_samples: list[np.ndarray] = field(default_factory=list)


def answer(name: str, model: str) -> dict:
    scores = taggram()
    whole = scores.mean(axis=0).round(4)
    order = np.argsort(-whole, kind="stable")
    plain = model == "plain"
    return {
        "model": model, "version": "ab12", "file": name, "seconds": SECONDS, "missing": 0.0,
        "decode_ms": 12.3, "compute_ms": 80.1, "decides_one": model == "genres",
        "tags": [{"label": TAGS[tag], "score": float(whole[tag])} for tag in order],
        "labels": TAGS, "thresholds": None if plain else THRESHOLDS,
        "times": [float(time) for time in range(len(scores))], "window_seconds": WINDOW,
        "taggram": scores.tolist(),
    }  # fmt: skip


def create_app(seen: Seen, *, token: str = ""):
    """Make the server; the first letters of a file's name say what becomes of it."""
    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import FileResponse, JSONResponse

    app = FastAPI()
    busy: set[str] = set()

    def error(status: int, text: str, **headers: str) -> JSONResponse:
        return JSONResponse({"error": text}, status, headers=headers)

    @app.middleware("http")
    async def guard(request, go_on):
        wanted = request.url.path.startswith("/v1/") and token
        if wanted and request.headers.get("Authorization") != f"Bearer {token}":
            return error(401, "Send the server's token.")
        response = await go_on(request)
        response.headers["Content-Security-Policy"] = CSP
        return response

    @app.get("/")
    async def index():
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}")
    async def part(name: str):
        return FileResponse(PAGE / name)

    @app.get("/v1/models")
    async def models():
        names = ("musicnn-mtt", "plain", "genres")
        return {
            "models": [
                {"name": name, "version": "ab12", "tags": len(TAGS), "embeddings": [],
                 "decides_one": name == "genres", "window_seconds": WINDOW}
                for name in names
            ]
        }  # fmt: skip

    async def segments(request, model: str):
        seen.at_once += 1
        seen.most_at_once = max(seen.most_at_once, seen.at_once)
        try:
            body = await request.body()
            name = unquote(request.headers["X-File-Name"])
            seen.names.append(name)
            seen.models.append(model)
            seen.bodies.append(body)
            if name.startswith("slow"):
                await asyncio.sleep(0.6)
            if name.startswith("never"):
                await asyncio.sleep(8)
            if name.startswith("busy") and name not in busy:
                busy.add(name)
                return error(503, "All workers are busy.", **{"Retry-After": "1"})
            if name.startswith("broken"):
                return error(422, f"{name} is no audio that can be read: convert it to wav.")
            return answer(name, model)
        finally:
            seen.at_once -= 1

    segments.__annotations__.update(request=Request, model=str)
    app.post("/v1/segments", response_model=None)(segments)

    async def live(socket):
        await socket.accept()
        said = json.loads(await socket.receive_text())["token"]
        seen.live_tokens.append(said)
        if said != token:
            await socket.close(4401, "Send the server's token.")
            return
        await socket.send_json(
            {"sample_rate": RATE, "tags": TAGS, "thresholds": THRESHOLDS, "window_seconds": WINDOW}
        )
        scores, heard, told = taggram(), 0, 0
        try:
            while True:
                piece = np.frombuffer(await socket.receive_bytes(), "<f4")
                seen.live_samples.append(piece)
                heard += len(piece)
                if heard >= (told + 1) * RATE:
                    told += 1
                    row = scores[told % len(scores)].tolist()
                    await socket.send_json({"time": float(told), "scores": row})
        except Exception:  # The page has gone.
            return

    live.__annotations__["socket"] = WebSocket
    app.websocket("/v1/live")(live)
    return app


@contextmanager
def serving(port: int, *, token: str = ""):
    """Serve the page; gives its address and what is asked of it."""
    import uvicorn

    seen = Seen()
    config = uvicorn.Config(
        create_app(seen, token=token), port=port, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server does not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        server.should_exit = True
        thread.join(10)
