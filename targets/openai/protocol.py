"""Who is behind an OpenAI-compatible server: its models, and what to do when it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from targets.api import UserError
from targets.remote.client import Garbled, HttpClient, Refused

KEY = "OPENAI_API_KEY"
SHOWN = 8
"""Model names in a refusal."""
ABSENT = re.compile(r"model.{0,80}(not found|not exist)", re.IGNORECASE)


@dataclass(frozen=True)
class Served:
    """A model that a server offers: its id there, whose it is, and its context where that is told."""

    id: str
    owner: str
    context: int | None


def client_of(url: str, timeout_s: float, key: str | None = None) -> HttpClient:
    """A client of the server at a url, with or without the /v1 that such urls often end with."""
    return HttpClient(url.rstrip("/").removesuffix("/v1"), key or os.environ.get(KEY), timeout_s)


def served(client: HttpClient) -> list[Served]:
    """The models of a server.

    Raises:
        UserError: it cannot be reached, does not speak the protocol, or refuses the key.
    """
    try:
        found = client.get("/v1/models")
    except Refused as refusal:
        raise explained(refusal, client) from None
    rows = found.get("data") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise Garbled(f"{client.url}/v1/models is no list of models: this is no OpenAI-compatible server")
    return [Served(str(row["id"]), str(row.get("owned_by", "")), context_of(row)) for row in rows]


def served_models(url: str, key: str | None = None, timeout_s: float = 10.0) -> list[str]:
    """The names of the models that a server offers; the key is OPENAI_API_KEY's unless given.

    Raises:
        UserError: it cannot be asked, or has none.
    """
    client = client_of(url, timeout_s, key)
    try:
        names = [each.id for each in served(client)]
    finally:
        client.close()
    if not names:
        raise UserError(f"{url}/v1/models: the server offers no model; load one into it")
    return names


def context_of(row: Mapping[str, Any]) -> int | None:
    """The context that a row of /v1/models tells: vLLM's max_model_len, or llama-server's meta.n_ctx."""
    meta = row.get("meta")
    found = row.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return int(found) if found else None


def explained(refusal: Refused, client: HttpClient, model: str | None = None) -> UserError:
    """A refusal with what to do about it; the refusal itself where no more is known."""
    if refusal.status in (401, 403):
        given = "the key it was given" if os.environ.get(KEY) else "requests without a key"
        return UserError(f"{client.url} refuses {given} (status {refusal.status}): set {KEY} to one that it takes")
    if model is not None and (refusal.status == 404 or ABSENT.search(refusal.told)):
        names = [each.id for each in served(client)]
        if model not in names:
            known = ", ".join(names[:SHOWN]) or "none"
            return UserError(f"{client.url} has no model {model!r}; it has {known}: choose with --openai-model")
    if refusal.status == 404:
        return UserError(f"{refusal.where} is not there: is that an OpenAI-compatible server?")
    return refusal
