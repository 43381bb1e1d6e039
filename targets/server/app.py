"""The application: routes, problems and the document, around one service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from targets.registry import did_you_mean
from targets.server.http.faults import FAULTS, problem_of
from targets.server.http.openapi import Document
from targets.server.http.problems import Problem
from targets.server.routes import chat, openai, operations, page, tasks
from targets.server.service import Service
from targets.server.settings import Settings

ABOUT = """Encoders and generators on this machine's own engines. Errors are problem details (RFC 9457)."""


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """The server as an ASGI application, which starts its service before it takes requests, and closes it at its end.

    An error of the start (UserError for what the user can mend) comes out of the application's lifespan.
    """
    service = service or Service(settings)
    document = Document(settings)
    app = FastAPIOffline(  # boards are often offline: FastAPI's own /docs would fetch its script from a CDN
        title="Edge NLP server",
        version="1",
        description=ABOUT,
        lifespan=lifespan(service),
        redoc_url=None,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    operations.add(app, service, document)
    tasks.add(app, service, document)
    openai.add(app, service, document)
    chat.add(app, service)
    page.add(app)
    document.install(app)
    handle_errors(app)
    return app


def lifespan(service: Service) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    """What surrounds the life of an app."""

    @contextlib.asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    return living


def handle_errors(app: FastAPI) -> None:
    """Every error is a problem document; what nobody foresaw is a 500 that the log explains."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(request.scope)

    async def fault(request: Request, error: Exception) -> Response:
        return problem_of(error).response(request.scope)

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return of_routing(request, error, app).response(request.scope)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return Problem.of_mistakes(error.errors()).response(request.scope)

    async def unforeseen(request: Request, _error: Exception) -> Response:
        return Problem(500, "the server failed; its log says how").response(request.scope)

    for kind in FAULTS:
        app.add_exception_handler(kind, fault)
    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)


def of_routing(request: Request, error: HTTPException, app: FastAPI) -> Problem:
    """No such path, or no such method there: with what there is."""
    path, headers = request.url.path[:100], error.headers
    if error.status_code == 404:
        if any(isinstance(route, WebSocketRoute) and route.path == request.url.path for route in app.routes):
            return Problem(426, f"{path} speaks WebSocket only", headers={"Upgrade": "websocket"})
        known = sorted({getattr(route, "path", "") for route in app.routes} - {""})
        return Problem(404, f"there is no {path!r} here.{did_you_mean(path, known)}")
    if error.status_code == 405:
        allowed = (headers or {}).get("Allow", "")
        told = f"{path} does not take {request.method[:20]}; allowed: {allowed}"
        return Problem(405, told, headers=headers)
    return Problem(error.status_code, error.detail, headers=headers)
