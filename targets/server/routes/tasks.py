"""The routes of the tasks: texts in, the tasks' own answers out, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from targets.api import Answer
from targets.registry import tasks
from targets.server.http import answers, schemas
from targets.server.http.body import Reader, deadline_s
from targets.server.http.disconnect import WhileConnected
from targets.server.http.event_stream import Endpoint, EventStream, counted
from targets.server.http.frames import Frames
from targets.server.http.openapi import Document
from targets.server.service import Service
from targets.server.settings import Limits


@dataclass(frozen=True)
class TaskRoute:
    """Where a task is asked for. `answer`: what each text is answered with."""

    path: str
    task: str
    body: type[schemas.Body]
    answer: type[answers.Read]
    summary: str


ROUTES = (
    TaskRoute("/sentiment", "sentiment", schemas.Texts, answers.Sentiment, "Which label each text carries"),
    TaskRoute("/ner", "ner", schemas.Texts, answers.Entities, "The people, places and organisations each text names"),
    TaskRoute("/qa", "qa", schemas.Questions, answers.Span, "The part of each context that answers its question"),
    TaskRoute("/summarize", "summarization", schemas.TextsToSummarize, answers.Text, "Each text made short"),
    TaskRoute("/translate", "translation", schemas.TextsToRewrite, answers.Text, "Each text from English to German"),
    TaskRoute("/generate", "generation", schemas.Prompts, answers.Text, "Each prompt continued"),
)


def add(app: FastAPI, service: Service, document: Document) -> None:
    """A route for each task that is served and is no chat."""
    limits = service.settings.limits
    for route in ROUTES:
        if route.task in service.engines:
            body = schemas.limited(route.body, limits, getattr(tasks[route.task], "max_tokens", None))
            app.router.add_api_route(
                route.path,
                endpoint(route, Reader(body), service, limits),
                methods=["POST"],
                response_class=Response,
                **document.task(route.task, route.summary, body, answers.Answers[route.answer]),  # type: ignore[name-defined]
            )


def endpoint(route: TaskRoute, reader: Reader[schemas.Body], service: Service, limits: Limits) -> Endpoint:
    """What answers requests to a route."""

    async def answered(request: Request) -> Response:
        body = await reader.read(request)
        asked = body.requests()
        within_s = deadline_s(request.scope, limits.deadline_s)
        if body.streams:
            dialect = Frames({"model": service.model(route.task)}, body.with_ids)
            return await EventStream(service.stream(route.task, asked[0], within_s), dialect).begun(request.receive)
        async with WhileConnected(request.receive):
            found = await service.answers(route.task, asked, within_s, body.width)
        told = {"model": service.model(route.task), "results": [shown(each, body.with_ids) for each in found]}
        return Response(to_json(told, inf_nan_mode="null"), media_type="application/json")

    return counted(service.metrics.task(route.task), answered)


HIDDEN = ("token_ids", "dropped_turns")
"""What only generators' answers have, and nobody wants who does not ask for it; only chats drop turns."""


def shown(answer: Answer, with_ids: bool) -> Mapping[str, Any]:
    """An answer as a client sees it."""
    if "token_ids" not in answer:
        return answer
    seen = {key: value for key, value in answer.items() if key not in HIDDEN}
    return seen | {"token_ids": answer["token_ids"]} if with_ids else seen
