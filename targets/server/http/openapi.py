"""The OpenAPI document: every body, every answer and every problem of every route, made of the pydantic models.

Routes read and write their bodies themselves, for speed and for sentences of their own, so FastAPI does not see them;
what stands here is what is tested against the running server.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from targets.server.http.answers import ProblemDetails
from targets.server.http.body import DEADLINE
from targets.server.http.event_stream import MEDIA_TYPE as EVENTS
from targets.server.http.problems import MEDIA_TYPE
from targets.server.http.schemas import Body
from targets.server.settings import Settings

PLACE = "#/components/schemas/{model}"
PROBLEMS = {
    400: "The body is no JSON",
    401: "The API key is missing or wrong",
    403: "The request comes from a web page of another origin, which was not allowed",
    404: "There is no such thing here",
    408: "The request came too slowly",
    413: "The body is larger than this server takes",
    415: "The body is no plain JSON by its headers",
    422: "The request is not as it should be; `errors` says what is wrong where",
    429: "More is asked for than the queue holds; try again after Retry-After",
    431: "The headers are larger than this server takes",
    500: "The server failed; its log says how, under the id of the request",
    502: "The server behind this engine did not answer as it should",
    503: "The model is not there, or its process ended; try again after Retry-After",
    504: "No answer was ready in time",
}
"""What each status of a problem means here."""
TASK_PROBLEMS = (400, 403, 408, 413, 415, 422, 429, 500, 502, 503, 504)
"""What a route that a model answers may say instead of an answer."""
RETRIED = (429, 503)
EVENT = {
    "type": "object",
    "title": "A server-sent event",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "JSON, or OpenAI's mark [DONE]."}},
}
"""What stands for a stream: one of its events, field by field, as tools read it (OpenAPI 3.2 calls it itemSchema)."""
KEY = {"type": "http", "scheme": "bearer", "description": "The server's API key"}


class Document:
    """Collects what the document says, route by route; `install` puts it into an app."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[type[BaseModel], None] = {ProblemDetails: None}

    def task(
        self, name: str, summary: str, body: type[Body], answer: type[BaseModel], *statuses: int
    ) -> dict[str, Any]:
        """Of a route that a model answers, with more problems than all such routes have: for `add_api_route`."""
        told = self.operation(summary, answer, *TASK_PROBLEMS, *statuses)
        if "stream" in body.model_fields:
            told["responses"][200]["content"][EVENTS] = {"schema": EVENT}
        extra = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": self.body(body)}}},
            "parameters": [*query(body), self.deadline()],
        }
        return told | {"operation_id": name, "tags": ["tasks"], "openapi_extra": told["openapi_extra"] | extra}

    def operation(self, summary: str, answer: type[BaseModel], *statuses: int, keyless: bool = False) -> dict[str, Any]:
        """Of any route that answers with JSON, and with these problems. `keyless`: it wants no API key."""
        return self._told(summary, {"application/json": {"schema": self.ref(answer)}}, statuses, keyless)

    def text(self, summary: str) -> dict[str, Any]:
        """Of a route that answers with plain text."""
        return self._told(summary, {"text/plain": {"schema": {"type": "string"}}}, (), False)

    def ref(self, model: type[BaseModel]) -> dict[str, str]:
        """Where the document defines a model."""
        self._models[model] = None
        return {"$ref": PLACE.format(model=model_name(model))}

    def body(self, model: type[Body]) -> dict[str, Any]:
        """What a route takes: its object, or the bare list that stands for one."""
        if model.bare is None:
            return self.ref(model)
        field = model.model_json_schema()["properties"][model.bare]
        lists = next(part for part in field.get("oneOf", [field]) if part.get("type") == "array")
        kept = {key: lists[key] for key in ("type", "items", "minItems", "maxItems")}
        return {"anyOf": [self.ref(model), {**kept, "title": f"The {model.bare} alone"}]}

    def deadline(self) -> dict[str, Any]:
        """The header for how long a client waits."""
        most = self._settings.limits.deadline_s
        schema = {"type": "number", "exclusiveMinimum": 0, "maximum": most}
        told = f"For how many seconds the client waits; after that 504 is answered. Without it: {most:g}."
        return {"name": DEADLINE, "in": "header", "required": False, "schema": schema, "description": told}

    def install(self, app: FastAPI) -> None:
        """Let the app's document define what its routes refer to."""
        made = app.openapi

        def openapi() -> dict[str, Any]:
            schema = made()
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {}).update(self._definitions())
            if self._settings.api_key_file:
                components["securitySchemes"] = {"key": KEY}
            return schema

        app.openapi = openapi  # type: ignore[method-assign]

    def _definitions(self) -> dict[str, Any]:
        definitions = models_json_schema([(model, "validation") for model in self._models], ref_template=PLACE)[1]
        found: dict[str, Any] = definitions["$defs"]
        return found

    def _told(self, summary: str, content: dict[str, Any], statuses: tuple[int, ...], keyless: bool) -> dict[str, Any]:
        keyed = bool(self._settings.api_key_file) and not keyless
        responses: dict[int | str, dict[str, Any]] = {200: {"description": "The answer", "content": content}}
        responses |= {status: self._problem(status) for status in (*statuses, 431, *((401,) if keyed else ()))}
        extra: dict[str, Any] = {"security": [{"key": []}]} if keyed else {}
        return {"summary": summary, "responses": responses, "openapi_extra": extra}

    def _problem(self, status: int) -> dict[str, Any]:
        told: dict[str, Any] = {
            "description": PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": self.ref(ProblemDetails)}},
        }
        if status in RETRIED:
            seconds = {"type": "integer", "minimum": 1}
            told["headers"] = {"Retry-After": {"schema": seconds, "description": "Seconds until another try"}}
        return told


def model_name(model: type[BaseModel]) -> str:
    """A model's name as pydantic writes it in definitions: brackets of generics become underscores."""
    return model.__name__.replace("[", "_").replace("]", "_")


def query(body: type[Body]) -> list[dict[str, Any]]:
    """The options of a body that may stand in the query."""
    fields = body.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{fields[name]['description']} What the body says goes before this.",
            "schema": plain(fields[name]),
        }
        for name in body.options
    ]


def plain(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field, null apart."""
    choices: list[dict[str, Any]] = field.get("anyOf", [field])
    return next(part for part in choices if part["type"] != "null")
