"""The routes that clients of OpenAI's API can use: chat completions, completions, and the list of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from targets.registry import did_you_mean
from targets.server.http.body import Reader, deadline_s
from targets.server.http.default_length import default_length
from targets.server.http.disconnect import WhileConnected
from targets.server.http.event_stream import Endpoint, EventStream, counted
from targets.server.http.openapi import Document
from targets.server.http.problems import Problem
from targets.server.http.schemas import limited
from targets.server.openai import answers as made
from targets.server.openai.bodies import ChatCompletionBody, CompletionBody, Sampled
from targets.server.openai.errors import of_openai, shaped
from targets.server.service import Service

TASKS = ("chat", "generation")
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def add(app: FastAPI, service: Service, document: Document) -> None:
    """Those routes whose task is served, and the models of both."""
    routes, limits = OpenAiRoutes(service), service.settings.limits

    def get(path: str, endpoint: Endpoint, told: dict[str, Any], *parameters: dict[str, Any]) -> None:
        told["openapi_extra"]["parameters"] = list(parameters)
        app.router.add_api_route(path, endpoint, methods=["GET"], response_class=Response, **told)

    def post(path: str, endpoint: Endpoint, task: str, told: dict[str, Any]) -> None:
        watched = counted(service.metrics.task(task), endpoint)
        app.router.add_api_route(path, watched, methods=["POST"], response_class=Response, **told)

    get("/v1/models", routes.models, document.operation("The models of these routes", made.ServedModels, 503))
    get("/v1/models/{name:path}", routes.model, document.operation("One of them", made.ServedModel, 404, 503), NAME)
    if "chat" in service.engines:
        body = limited(ChatCompletionBody, limits)
        routes.chat_reader = Reader(body)
        told = document.task("chat_completions", "A conversation, answered", body, made.ChatCompletion, 404)
        post("/v1/chat/completions", routes.chat, "chat", told)
    if "generation" in service.engines:
        prompts = limited(CompletionBody, limits)
        routes.completion_reader = Reader(prompts)
        told = document.task("completions", "Prompts, continued", prompts, made.Completion, 404)
        post("/v1/completions", routes.completion, "generation", told)


class OpenAiRoutes:
    """The endpoints."""

    chat_reader: Reader[ChatCompletionBody]
    completion_reader: Reader[CompletionBody]

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limits = service.settings.limits

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        with shaped():
            return answered({"object": "list", "data": list(self._rows().values())})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        with shaped():
            rows, name = self._rows(), request.path_params["name"]
            if name not in rows:
                raise no_model(name, list(rows))
            return answered(rows[name])

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        with shaped():
            body = await self.chat_reader.read(request)
            model = self._known(body, "chat")
            room = default_length(self._service.engines["chat"].facts, self._limits)
            asked = body.request(room, self._limits.max_text_chars)
            within_s = deadline_s(request.scope, self._limits.deadline_s)
            if body.stream:
                chunks = made.Chunks(model, chat=True, counted=body.usage_wanted)
                return await EventStream(self._service.stream("chat", asked, within_s), chunks).begun(request.receive)
            async with WhileConnected(request.receive):
                answer = await self._service.answer("chat", asked, within_s)
            return answered(made.chat_completion(model, answer))

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        with shaped():
            body = await self.completion_reader.read(request)
            model = self._known(body, "generation")
            asked = body.asked()
            within_s = deadline_s(request.scope, self._limits.deadline_s)
            if body.stream:
                if len(asked) > 1:
                    raise Problem.invalid("stream", "several prompts are not streamed; send them one by one")
                chunks = made.Chunks(model, chat=False, counted=body.usage_wanted)
                stream = self._service.stream("generation", asked[0], within_s)
                return await EventStream(stream, chunks).begun(request.receive)
            async with WhileConnected(request.receive):
                answers = await self._service.answers("generation", asked, within_s, None)
            return answered(made.completion(model, answers))

    def _known(self, body: Sampled, task: str) -> Mapping[str, str]:
        """The model of a task. Raises Problem if the request names another one."""
        found = self._service.model(task)
        if body.model not in (None, found["name"], task):
            raise no_model(str(body.model), [found["name"]])
        return found

    def _rows(self) -> dict[str, dict[str, Any]]:
        """The models by name; one that both tasks have is one."""
        rows = {}
        for task in TASKS:
            if task in self._service.engines:
                name = self._service.model(task)["name"]
                told = {"object": "model", "created": 0, "owned_by": made.OWNER}
                rows[name] = {"id": name, **told, "max_model_len": self._service.engines[task].facts.context}
        return rows


def no_model(name: str, known: list[str]) -> Problem:
    """The refusal of a model that is not there."""
    told = f"the model {name[:80]!r} does not exist here.{did_you_mean(name, known)}"
    return of_openai(Problem(404, told), "model_not_found")


def answered(content: object) -> Response:
    """A JSON answer."""
    return Response(to_json(content), media_type="application/json")
