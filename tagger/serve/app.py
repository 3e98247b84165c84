"""The service: routes, what they are given, and what they answer."""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from tagger.base.errors import ModelError, TaggerError
from tagger.base.suggest import did_you_mean
from tagger.base.version import VERSION
from tagger.serve import answers
from tagger.serve.desk import Desk
from tagger.serve.errors import RequestError, too_many_wait
from tagger.serve.guards import HEADERS, Figures, Guards, is_token
from tagger.serve.jobs import Jobs
from tagger.serve.live import Listener
from tagger.serve.settings import ServeSettings
from tagger.serve.uploads import Upload, received
from tagger.tagging.pipeline import ClipOutputs
from tagger.tagging.prediction import Prediction
from tagger.tagging.tagger import PENULTIMATE, Tagger

PAGE = Path(__file__).parent / "page"
# Of a live client: half a minute of samples is no message.
_MOST_LIVE_BYTES = 1 << 21
# How often it is looked whether a client still waits.
_LOOK_SECONDS = 0.5
# Codes of one's own begin at 4000; the page asks for a token at this one.
_CLOSED = {401: 4401}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "the audio file: as the body, or as the field `file` of a form",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Problem, "description": what}
    for status, what in {
        401: "a token is wanted",
        404: "no such model or job",
        408: "the upload took too long",
        413: "too large or too long",
        422: "no audio, or an option that is none",
        503: "too many requests wait; Retry-After says when to ask again",
        504: "the answer took too long",
        507: "no room for the upload",
    }.items()
}
ModelQuery = Annotated[
    str | None, Query(description="of /v1/models; default the first", examples=["musicnn-mtt"])
]
TopQuery = Annotated[int | None, Query(ge=1, le=10_000, description="at most so many tags")]
ThresholdQuery = Annotated[
    Annotated[float, Query(ge=0, le=1)] | Literal["auto"] | None,
    Query(description="only tags that score at least this; auto: the model's own"),
]


class Service:
    """Models that are loaded, and who works at them.

    Parameters
    ----------
    settings : ServeSettings
        Which, and within which bounds.

    Raises
    ------
    ModelError
        If a model cannot be loaded.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.figures = Figures()
        self.jobs = Jobs(settings)
        self.desks: dict[str, Desk] = {}
        for name in settings.models:
            tagger = Tagger.load(name, jobs=settings.jobs)
            if not tagger.tags:
                raise ModelError(f"{name}: gives embeddings and no tags; serve another model")
            # The first file would otherwise wait for it.
            _silence(tagger)
            self.desks[tagger.model.name] = Desk(
                tagger,
                at_work=settings.at_work,
                waiting=settings.waiting,
                max_seconds=settings.max_seconds,
            )
        self.n_live = self.n_arriving = 0

    def desk(self, name: str | None) -> Desk:
        """Find who works at a model.

        Raises
        ------
        RequestError
            404 where it is not loaded.
        """
        if name is None:
            return next(iter(self.desks.values()))
        if name not in self.desks:
            known = list(self.desks)
            raise RequestError(
                404, f"no model {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
        return self.desks[name]

    @contextlib.asynccontextmanager
    async def upload(self, request: Request, *, full: bool) -> AsyncIterator[Upload]:
        """Take the file of a request, where there is room for another one.

        Raises
        ------
        RequestError
            503 before a byte of it has come where too many wait or arrive.
        """
        most = self.settings.at_work + self.settings.waiting
        if full or self.n_arriving >= most:
            raise too_many_wait()
        self.n_arriving += 1
        try:
            async with received(request, self.settings) as upload:
                yield upload
        finally:
            self.n_arriving -= 1

    async def hear(
        self, request: Request, model: str | None, outputs: tuple[str, ...] | None = None
    ) -> tuple[Desk, ClipOutputs, str]:
        """Have a model hear the file of a request; gives who heard it, what, and its name."""
        desk = self.desk(model)
        wanted = outputs or desk.tagger.asked
        async with self.upload(request, full=desk.is_full) as upload:
            asked = asyncio.ensure_future(
                desk.ask(upload, wanted, seconds=self.settings.timeout_seconds)
            )
            try:
                while not (await asyncio.wait([asked], timeout=_LOOK_SECONDS))[0]:
                    if await request.is_disconnected():
                        raise RequestError(400, "the client went away; send it again")
                found = asked.result()
            finally:
                # Nobody waits for it any more; of one that is done it changes nothing.
                asked.cancel()
        self.figures.audio.labels(desk.tagger.model.name).inc(found.seconds)
        return desk, found, upload.name

    def close(self) -> None:
        """Answer what is under way, and end all threads."""
        for desk in self.desks.values():
            desk.close()
        self.jobs.close()


def _silence(tagger: Tagger) -> Prediction:
    """Have a model hear a second of silence."""
    rate = tagger.front_end.sample_rate
    return tagger.predict(np.zeros(rate, dtype=np.float32), rate)


def create_app(settings: ServeSettings, service: Service | None = None) -> FastAPI:
    """Make the service.

    Parameters
    ----------
    settings : ServeSettings
        Models and bounds.
    service : Service, optional
        One that is there already; default a new one.

    Returns
    -------
    FastAPI
        To be run by uvicorn, or mounted in another application.

    Raises
    ------
    ModelError
        If a model cannot be loaded.
    """
    here = service or Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(here.close)

    app = FastAPI(
        title="tagger",
        version=VERSION,
        description="Tags of music, by drop or by curl.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = here
    app.add_middleware(Guards, settings=settings, figures=here.figures)
    _add_errors(app)
    _add_heard(app, here)
    _add_jobs(app, here)
    _add_live(app, here)
    _add_health(app, here)
    _add_page(app)
    return app


def _add_errors(app: FastAPI) -> None:
    def said(status: int, message: str, retry: int | None = None) -> JSONResponse:
        headers = {} if retry is None else {"Retry-After": str(retry)}
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(RequestError)
    async def of_request(_: Request, error: RequestError) -> JSONResponse:
        return said(error.status, str(error), error.retry_seconds)

    @app.exception_handler(TaggerError)
    async def of_tagger(_: Request, error: TaggerError) -> JSONResponse:
        return said(422, " ".join(str(error).split()))

    @app.exception_handler(RequestValidationError)
    async def of_options(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return said(422, f"{where}: {first['msg'].lower()}; see /openapi.json")

    @app.exception_handler(Exception)
    async def of_ours(_: Request, error: Exception) -> JSONResponse:
        # Outside of all that stands around other answers.
        line = f"something failed here ({type(error).__name__}); send it again, or tell us"
        return JSONResponse({"error": line}, 500, HEADERS)

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> JSONResponse:
        return said(error.status_code, f"{error.detail}; see /openapi.json")


def _add_heard(app: FastAPI, here: Service) -> None:
    @app.post("/v1/tags", response_model=answers.Tags, responses=_PROBLEMS, openapi_extra=_UPLOAD)
    async def tags(
        request: Request,
        model: ModelQuery = None,
        top_k: TopQuery = None,
        threshold: ThresholdQuery = None,
    ) -> Any:
        """Tags of a file, highest first."""
        desk, found, name = await here.hear(request, model)
        said = desk.tagger.prediction(name, found)
        wanted = answers.tags_of(said, top_k=top_k, threshold=threshold)
        return JSONResponse({**answers.heard(desk.tagger, found, name), "tags": wanted})

    @app.post(
        "/v1/segments", response_model=answers.Segments, responses=_PROBLEMS, openapi_extra=_UPLOAD
    )
    async def segments(request: Request, model: ModelQuery = None) -> Any:
        """Tags of a file, and scores over time."""
        desk, found, name = await here.hear(request, model)
        return JSONResponse(_segments(desk.tagger, found, name))

    @app.post(
        "/v1/embeddings",
        response_model=answers.Embeddings,
        responses=_PROBLEMS,
        openapi_extra=_UPLOAD,
    )
    async def embeddings(
        request: Request, model: ModelQuery = None, layer: str | None = None
    ) -> Any:
        """Embeddings of a file: what the network sees of each window."""
        names = here.desk(model).tagger.embeddings
        wanted = layer or (PENULTIMATE if PENULTIMATE in names else next(iter(names), ""))
        if wanted not in names:
            raise RequestError(422, f"no layer {wanted!r}; there are {', '.join(names) or 'none'}")
        desk, found, name = await here.hear(request, model, (wanted,))
        made = desk.tagger.embedding(name, found, layer=wanted)
        return JSONResponse(
            {
                **answers.heard(desk.tagger, found, name),
                "layer": wanted,
                "times": answers.rounded(made.times),
                "window_seconds": made.window_seconds,
                "values": answers.rounded(made.values),
            }
        )

    @app.post("/", response_model=answers.OneMessage, responses=_PROBLEMS, openapi_extra=_UPLOAD)
    async def message(request: Request, model: ModelQuery = None) -> Any:
        """Answer as the service of the musicnn report does, with its three keys."""
        begun = time.perf_counter()
        desk, found, name = await here.hear(request, model)
        said = answers.message_of(desk.tagger.prediction(name, found))
        duration = round(time.perf_counter() - begun, 2)
        return JSONResponse({"duration": duration, "message": said, "status": "success"})

    @app.get("/v1/models")
    async def models() -> dict[str, list[answers.ModelInfo]]:
        """Models that are loaded; the first is asked where none is named."""
        return {"models": [_info(desk.tagger) for desk in here.desks.values()]}


def _info(tagger: Tagger) -> answers.ModelInfo:
    return answers.ModelInfo(
        name=tagger.model.name,
        version=tagger.model.version,
        tags=len(tagger.tags),
        embeddings=list(tagger.embeddings),
        decides_one=tagger.model.decides_one,
        window_seconds=tagger.front_end.window_seconds,
    )


def _segments(tagger: Tagger, found: ClipOutputs, name: str) -> dict[str, Any]:
    said = tagger.prediction(name, found)
    return {
        **answers.heard(tagger, found, name),
        "tags": answers.tags_of(said, top_k=None, threshold=None),
        **answers.over_time(said),
    }


def _add_jobs(app: FastAPI, here: Service) -> None:
    @app.post("/v1/jobs", status_code=202, responses=_PROBLEMS, openapi_extra=_UPLOAD)
    async def add(request: Request, model: ModelQuery = None) -> dict[str, Any]:
        """Take a long file; its answer is that of /v1/segments."""
        tagger = here.desk(model).tagger
        async with here.upload(request, full=here.jobs.is_full) as upload:
            job = here.jobs.add(tagger, upload, functools.partial(_segments, tagger))
        return job.status()

    @app.get("/v1/jobs/{job_id}", responses=_PROBLEMS)
    async def status(job_id: str) -> Any:
        """How far a job is, and its result where it is done."""
        job = here.jobs.get(job_id)
        return JSONResponse({**job.status(), "result": job.result})

    @app.get("/v1/jobs/{job_id}/events", responses=_PROBLEMS)
    async def events(job_id: str) -> StreamingResponse:
        """Follow a job: server-sent events, until it is over."""
        job = here.jobs.get(job_id)

        async def told() -> AsyncIterator[str]:
            async for status in here.jobs.follow(job):
                yield f"event: {status['state']}\ndata: {json.dumps(status)}\n\n"

        return StreamingResponse(told(), media_type="text/event-stream")


def _add_live(app: FastAPI, here: Service) -> None:
    @app.websocket("/v1/live")
    async def live(socket: WebSocket, model: str | None = None) -> None:
        await socket.accept()
        try:
            await _listen(socket, here, model)
        except RequestError as error:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.send_json({"error": str(error)})
                await socket.close(_CLOSED.get(error.status, 1008))
        except (WebSocketDisconnect, RuntimeError):
            pass


async def _listen(socket: WebSocket, here: Service, model: str | None) -> None:
    try:
        first = await asyncio.wait_for(socket.receive_text(), here.settings.timeout_seconds)
        token = str(json.loads(first)["token"])
    except TimeoutError:
        raise RequestError(408, "no first message came; open it again") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RequestError(401, 'send {"token": "..."} first, empty where there is none') from None
    if not is_token(token, here.settings):
        raise RequestError(401, "this service wants a token; send it in the first message")
    desk = here.desk(model)
    if here.n_live >= here.settings.live:
        raise RequestError(503, "too many microphones are listened to; try again later")
    here.n_live += 1
    try:
        listener = Listener(desk.tagger)
        await socket.send_json(
            {
                "sample_rate": listener.sample_rate,
                "tags": list(desk.tagger.tags),
                "thresholds": answers.thresholds_of(desk.tagger.thresholds),
                "window_seconds": listener.window_seconds,
            }
        )
        while True:
            content = await socket.receive_bytes()
            if len(content) > _MOST_LIVE_BYTES or len(content) % 4:
                raise RequestError(422, "send float32 samples, less than half a minute at once")
            samples = np.frombuffer(content, "<f4")
            for at, said in await asyncio.to_thread(listener.heard, samples):
                scores = answers.rounded(said.scores)
                await socket.send_json({"time": round(at, 3), "scores": scores})
    except KeyError:
        raise RequestError(422, "send binary messages of float32 samples") from None
    finally:
        here.n_live -= 1


def _add_health(app: FastAPI, here: Service) -> None:
    # Stated twice: one operation with two methods would have one id for both in the description.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Say whether another request would be taken."""
        full = all(desk.is_full for desk in here.desks.values())
        return JSONResponse({"status": "busy" if full else "ready"}, 503 if full else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        for name, desk in here.desks.items():
            here.figures.inside.labels(name).set(desk.n_inside)
        content = generate_latest(here.figures.registry).decode()
        return PlainTextResponse(content, media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    known = {path.name: path for path in PAGE.glob("*") if path.is_file()}

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(known["index.html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> FileResponse:
        # By the names that there are: nothing that a client says is a path.
        if name not in known:
            raise RequestError(404, "no such page; see /")
        return FileResponse(known[name])
