"""The server's routes. Everything it needs is handed to `create_app`; nothing is global."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.exceptions import HTTPException

from vitreous.config.serve import ServeConfig
from vitreous.errors import VitreousError
from vitreous.inputs import SERVER_FORMATS
from vitreous.runs import Prediction
from vitreous.serving import replies, service
from vitreous.serving.errors import ClientGoneError, RequestError, describe, error_body
from vitreous.serving.gate import Gate, read_token
from vitreous.serving.limits import BodyReader, images_in, media_type
from vitreous.serving.pages import describe_api, load_shell
from vitreous.serving.predictor import Predictor

T = TypeVar("T")
logger = logging.getLogger("vitreous.serving")

_HEATMAP_SIDE = 256
"""Longer side of a heat map in JSON: finer than any patch grid, and still a small reply."""
_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}, "required": ["file"]}
_IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"An image ({', '.join(SERVER_FORMATS)}) as it is, or files of a form.",
        "content": {
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": replies.ErrorReply, "description": "Not an image, truncated, or an unknown name."},
    401: {"model": replies.ErrorReply, "description": "The token is missing or wrong."},
    408: {"model": replies.ErrorReply, "description": "The body came too slowly."},
    413: {"model": replies.ErrorReply, "description": "Too many bytes, pixels or images."},
    415: {"model": replies.ErrorReply, "description": "A media type or image format that is not accepted."},
    421: {"model": replies.ErrorReply, "description": "The Host header names another server."},
    422: {"model": replies.ErrorReply, "description": "Readable, but not what the model takes."},
    503: {"model": replies.ErrorReply, "description": "Busy or shutting down; see Retry-After."},
    504: {"model": replies.ErrorReply, "description": "Not ready within the time allowed."},
}
_NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"model": replies.ErrorReply, "description": "No such model."}}
_NO_EXTRA: dict[int | str, dict[str, Any]] = {
    501: {"model": replies.ErrorReply, "description": "A method whose packages are not installed."}
}


def create_app(predictor: Predictor, config: ServeConfig, *, check_host: bool = False) -> FastAPI:
    """The ASGI application for one model. Raises UsageError for a token file that cannot be used.

    check_host: bound to loopback, answer 421 to requests for any other name (`serve` and `BackgroundServer` do). Off,
    the application can be called in process or mounted in another, under whatever name that one has.

    `app.state.service` is what `serving.run` drains on SIGTERM.
    """
    work = service.Service(predictor, config)
    token = read_token(config.token_file)
    shell = load_shell()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await work.ready()
        yield
        work.close()

    app = FastAPI(
        title=f"vitreous, serving {work.name}",
        description="Send an image, get its class with a calibrated probability.",
        version=work.version,
        docs_url=None,  # FastAPI's own pages load their scripts from another site
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = work
    app.add_middleware(Gate, service=work, config=config, token=token, shell=frozenset(shell), check_host=check_host)
    app.add_exception_handler(VitreousError, _vitreous_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    _add_model_routes(app, work, BodyReader(config.max_body, config.body_timeout))
    _add_operator_routes(app, work)
    _add_pages(app, shell)
    return app


def _add_model_routes(app: FastAPI, work: service.Service, bodies: BodyReader) -> None:
    @app.post("/predict", openapi_extra=_IMAGE_BODY, responses=_FAILURES)
    async def predict(request: Request) -> replies.PredictReply:
        """Classify one image or several."""
        answers = await _predict(request, work, bodies)
        if len(answers) == 1 and isinstance(answers[0], VitreousError):
            raise answers[0]
        return replies.PredictReply(
            model=work.name,
            version=work.version,
            predictions=[_entry(answer, request) for answer in answers],
            id=request.state.request_id,
        )

    @app.put("/predictions/{model}", include_in_schema=False)  # `curl -T`, as TorchServe's manual has it
    @app.post("/predictions/{model}", openapi_extra=_IMAGE_BODY, responses={**_FAILURES, **_NO_MODEL})
    async def predictions(model: str, request: Request) -> dict[str, replies.Finite]:
        """Classify one image, with TorchServe's address and reply: the likeliest classes and their probabilities."""
        _check_model(model, work)
        answers = await _predict(request, work, bodies, most=1)
        if isinstance(answers[0], VitreousError):
            raise answers[0]
        return dict(answers[0].top)

    @app.post(
        "/explain",
        openapi_extra=_IMAGE_BODY,
        response_model=None,
        responses={
            200: {"model": replies.HeatmapReply, "content": {"image/png": {"schema": _BINARY}}},
            **_FAILURES,
            **_NO_EXTRA,
        },
    )
    async def explain(
        request: Request,
        method: Annotated[str, Query(description="Explanation method; auto takes the best that works here.")] = "auto",
        target: Annotated[str | None, Query(description="Class to explain; the likeliest when absent.")] = None,
        format: Annotated[Literal["png", "json"], Query(description="Overlay as PNG, or heat map as JSON.")] = "png",
    ) -> Response:
        """Show which parts of an image speak for a class."""
        kind = media_type(request)
        async with bodies.read(request) as body:
            image = (await images_in(request, body, kind, max_images=1))[0]
            explanation = await _while_connected(
                request, work.explain(image, method, _class_name(target, work), _job(request))
            )
        if format == "json":
            return JSONResponse(_heatmap(explanation, work, request).model_dump())
        headers = {"X-Explanation-Target": quote(explanation.target), "X-Explanation-Method": explanation.method}
        return Response(await work.encode_png(explanation, _job(request)), media_type="image/png", headers=headers)

    @app.get(
        "/v2/models/{model}", responses={404: {"model": replies.ProtocolError}, 422: {"model": replies.ProtocolError}}
    )
    async def metadata(model: str) -> replies.ModelMetadata:
        """Describe the model, as the Open Inference Protocol has it."""
        _check_model(model, work)
        return _metadata(work)


def _add_operator_routes(app: FastAPI, work: service.Service) -> None:
    @app.get("/v2/health/live")
    async def live() -> replies.Live:
        """True as long as the process answers at all."""
        return replies.Live(live=True)

    @app.get("/v2/health/ready", responses={503: {"model": replies.Ready}})
    async def ready(response: Response) -> replies.Ready:
        """True once the model has answered a trial image, until shutdown begins."""
        state = await work.ready()
        response.status_code = 200 if state else 503
        return replies.Ready(ready=state)

    @app.get("/ping", responses={503: {"model": replies.Ping}})
    async def ping(response: Response) -> replies.Ping:
        """Answer TorchServe's health check."""
        response.status_code = 503 if work.draining else 200
        return replies.Ping(status="Unhealthy" if work.draining else "Healthy")

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters and histograms in the Prometheus text format."""
        return Response(work.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI, shell: dict[str, tuple[bytes, str]]) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(describe_api(app.openapi()))

    @app.get("/", include_in_schema=False)
    @app.get("/web/{name}", include_in_schema=False)
    async def page(request: Request) -> Response:
        found = shell.get(request.url.path)
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-cache"})


async def _predict(
    request: Request, work: service.Service, bodies: BodyReader, most: int | None = None
) -> list[Prediction | VitreousError]:
    kind = media_type(request)
    async with bodies.read(request) as body:
        images = await images_in(request, body, kind, most or work.config.max_queue)
        return await _while_connected(request, work.predict(images, _job(request)))


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, or stop it as soon as nobody waits for its result. The body must have been read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _job(request: Request) -> service.Request:
    return service.Request(request.state.request_id, request.state.deadline)


def _check_model(model: str, work: service.Service) -> None:
    if model != work.name:
        raise RequestError(404, "unknown_model", f"There is no model {model[:80]!r} here, only {work.name!r}.")


def _class_name(target: str | None, work: service.Service) -> str | int | None:
    """A class by its name, or by its number where no class is named so."""
    if target is None or target in work.predictor.classes or not target.isdecimal() or len(target) > 9:
        return target
    return int(target) if int(target) < len(work.predictor.classes) else target


def _entry(answer: Prediction | VitreousError, request: Request) -> replies.PredictionReply | replies.ErrorReply:
    if isinstance(answer, Prediction):
        return replies.PredictionReply.of(answer)
    _, code, message = _described(answer, request)
    return replies.ErrorReply(error=replies.ErrorInfo(code=code, message=message, id=request.state.request_id))


def _heatmap(explanation: Any, work: service.Service, request: Request) -> replies.HeatmapReply:
    rows = _at_most(explanation.heatmap, _HEATMAP_SIDE).astype(np.float64).round(3)
    return replies.HeatmapReply(
        model=work.name,
        version=work.version,
        id=request.state.request_id,
        target=explanation.target,
        method=explanation.method,
        height=rows.shape[0],
        width=rows.shape[1],
        heatmap=rows.tolist(),
    )


def _at_most(heatmap: np.ndarray, side: int) -> np.ndarray:
    """A heat map (h, w) whose longer side is `side` at most; it is as large as the photograph otherwise."""
    scale = side / max(heatmap.shape)
    if scale >= 1:
        return heatmap
    height, width = (max(1, round(length * scale)) for length in heatmap.shape)
    return np.asarray(Image.fromarray(heatmap.astype(np.float32)).resize((width, height), Image.Resampling.BOX))


def _metadata(work: service.Service) -> replies.ModelMetadata:
    spec, engine = work.predictor.spec, work.predictor.engine.name
    return replies.ModelMetadata(
        name=work.name,
        versions=[work.version],
        platform="onnxruntime_onnx" if engine == "onnxruntime" else f"pytorch_{engine}",
        inputs=[replies.TensorMetadata(name="images", datatype="FP32", shape=[-1, *spec.shape])],
        outputs=[replies.TensorMetadata(name="logits", datatype="FP32", shape=[-1, len(spec.classes)])],
        parameters=replies.ModelParameters(
            classes=list(spec.classes),
            explain_methods=["auto", *work.predictor.explain_methods()],
            formats=list(SERVER_FORMATS),
            strangeness=work.predictor.run.strangeness is not None,
        ),
    )


def _described(error: VitreousError, request: Request) -> tuple[int, str, str]:
    """How to say an error; what is our fault goes to the log with everything that the reply leaves out."""
    status, code, message = describe(error)
    if code == "internal":
        logger.error("request %s failed", request.state.request_id, exc_info=error)
    return status, code, message


async def _vitreous_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VitreousError)
    status, code, message = _described(error, request)
    return _failure(request, status, code, message, getattr(error, "headers", None))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = {
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", f"This address does not take {request.method}."),
    }
    code, message = said.get(error.status_code, ("bad_request", "The request cannot be answered."))
    return _failure(request, error.status_code, code, message, dict(error.headers or {}))


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return _failure(request, 422, "invalid_request", f"The request has wrong parameters: {faults}.", None)


def _failure(request: Request, status: int, code: str, message: str, headers: dict[str, str] | None) -> JSONResponse:
    request.state.error_code = code
    return JSONResponse(error_body(request.url.path, code, message, request.state.request_id), status, headers)
