"""The routes for those who run the server: is it alive, is it ready, what does it measure."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.responses import Response

from targets.server.http import answers
from targets.server.http.openapi import Document
from targets.server.http.problems import Problem
from targets.server.service import Service


def add(app: FastAPI, service: Service, document: Document) -> None:
    """The three routes. They take no key and no load: a probe must not fail because the server is busy."""

    async def health() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready() -> Response:
        tasks = service.states()
        if service.ready:
            return Response(to_json({"status": "ready", "tasks": tasks}), media_type="application/json")
        waiting = ", ".join(f"{name} is {found['state']}" for name, found in tasks.items() if found["state"] != "ready")
        problem = Problem.later(503, f"not every model is loaded: {waiting or 'the server starts'}")
        problem.extra["tasks"] = tasks
        raise problem

    async def metrics() -> Response:
        text = await asyncio.to_thread(service.metrics.render)  # with device telemetry it reads sensors
        return Response(text, media_type=service.metrics.content_type)

    for path, endpoint, told in (
        ("/health", health, document.operation("Whether the server is alive", answers.Health, keyless=True)),
        ("/ready", ready, document.operation("Whether every model is loaded", answers.Readiness, 503, keyless=True)),
        ("/metrics", metrics, document.text("What the server measures, for Prometheus")),
    ):
        app.router.add_api_route(path, endpoint, methods=["GET"], response_class=Response, **told)
