"""Models of the Hub: what is in the cache needs no network, and what keeps one from a model is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.models import Model, custom, provision
from suites.meta.model_files import SHA, folder, gguf
from targets.api import Unavailable, UserError

PAGE = "accept its terms at https://huggingface.co/org/name, then run `hf auth login` or set HF_TOKEN to your token"


def pinned(**changes: Any) -> Model:
    return Model(**{"name": "m", "task": "qa", "source": "hub", "repo": "org/name", "revision": SHA} | changes)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, and no network: to ask it is a failure of the test."""
    library = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path / "hub"))

    def local_only(real: Callable[..., str], *args: Any, local_files_only: bool, **kwargs: Any) -> str:
        if not local_files_only:
            raise library.utils.LocalEntryNotFoundError("no network here") from ConnectionError("unplugged")
        return str(real(*args, local_files_only=True, cache_dir=library.constants.HF_HUB_CACHE, **kwargs))

    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(library, name, partial(local_only, getattr(library, name)))
    monkeypatch.setattr(library, "get_token", lambda: None)
    return tmp_path / "hub" / "models--org--name" / "snapshots" / SHA


@pytest.mark.parametrize("offline", [True, False])
def test_a_pinned_model_in_the_cache_needs_no_network(hub_cache: Path, offline: bool) -> None:
    """A pinned revision that is whole in the cache is used, with or without --offline, and the network is not asked."""
    folder(hub_cache)
    found = provision(pinned(gated=True), hub_cache, offline=offline)
    assert (found.path, found.source) == (hub_cache, f"org/name@{SHA}")


@pytest.mark.parametrize("offline", [True, False])
def test_a_gguf_of_the_hub_is_fetched_alone(hub_cache: Path, offline: bool) -> None:
    """Of a GGUF entry only its file is wanted: beside a whole folder it is missed, and without one it is enough."""
    pytest.importorskip("gguf")
    model = pinned(task="generation", file="small.gguf")
    folder(hub_cache)
    with pytest.raises(Unavailable, match=rf"`hf download org/name --revision {SHA} small\.gguf`"):
        provision(model, hub_cache, offline=offline)
    for path in hub_cache.iterdir():
        path.unlink()
    gguf(hub_cache / "small.gguf")
    found = provision(model, hub_cache, offline=offline)
    assert (found.path, found.format, found.source) == (hub_cache / "small.gguf", "gguf", f"org/name@{SHA}")


@pytest.mark.parametrize("file", [None, "small.gguf"])
def test_a_gated_model_without_a_token_is_not_asked_for(hub_cache: Path, file: str | None) -> None:
    """A gated model needs a token before anything is fetched: the page to visit and how to set one are told."""
    with pytest.raises(Unavailable) as caught:
        provision(pinned(gated=True, file=file, size_mb=1e9), hub_cache)
    assert str(caught.value) == f"org/name is gated: {PAGE}"


def test_a_gated_model_with_a_token_is_fetched(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token the Hub is asked; that it cannot be reached is then what is wrong."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    with pytest.raises(Unavailable, match="cannot be reached"):
        provision(pinned(gated=True), hub_cache)


def test_a_pickled_model_is_not_fetched_untrusted(hub_cache: Path) -> None:
    """A repository with pickled weights only is skipped before it is fetched, and used when its author is trusted."""
    folder(hub_cache, model__safetensors=None, pytorch_model__bin=b"\x80\x02}.")
    with pytest.raises(Unavailable, match=r"org/name publishes its weights as pickles only, .*pass --trust-pickle if"):
        provision(pinned(pickled=True), hub_cache)
    assert provision(pinned(pickled=True), hub_cache, trust_pickle=True).trust_pickle


@pytest.mark.parametrize(
    ("offline", "sentence"),
    [
        (
            True,
            "org/name is not, or not whole, in the Hugging Face cache, and the run is --offline: `hf download org/name",
        ),
        (
            False,
            "org/name: the Hugging Face Hub cannot be reached (ConnectionError); connect, or run `hf download org/name",
        ),
    ],
)
@pytest.mark.parametrize("partly", [True, False])
def test_a_model_out_of_reach_is_unavailable(hub_cache: Path, offline: bool, sentence: str, partly: bool) -> None:
    """Without network, a model not or only in part in the cache is unavailable, with the command that gets it."""
    if partly:
        folder(hub_cache, model__safetensors=None)
    with pytest.raises(Unavailable) as caught:
        provision(pinned(), hub_cache, offline=offline)
    assert str(caught.value).startswith(sentence)
    assert f"--revision {SHA}" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        ("GatedRepoError", Unavailable, f"org/name is gated: {PAGE}"),
        ("RepositoryNotFoundError", UserError, "org/name: no such repository on the Hub, or a private one"),
        (
            "RevisionNotFoundError",
            UserError,
            "org/name: no revision 'v9'; see https://huggingface.co/org/name/commits/main",
        ),
        ("HfHubHTTPError", Unavailable, "org/name: the Hugging Face Hub cannot be reached (HfHubHTTPError)"),
    ],
)
def test_refusals_of_the_hub_become_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, kind: type[Exception], sentence: str
) -> None:
    """Gated, unknown and unreachable are told apart."""
    library = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.utils")
    requests = pytest.importorskip("requests")

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise getattr(library.utils, error)("a text\nof many lines", response=requests.Response())

    monkeypatch.setattr(library, "snapshot_download", refuse)
    with pytest.raises(kind) as caught:
        provision(pinned(revision="v9"), tmp_path)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_download_larger_than_the_disk_is_refused(hub_cache: Path) -> None:
    """A model that does not fit on the disk is not begun."""
    with pytest.raises(
        UserError, match=r"org/name needs 1000000000 MB and 500 MB to spare, .* MB free; make room or set"
    ):
        provision(pinned(size_mb=1e9), hub_cache)


def test_a_hub_name_that_cannot_be_is_named(tmp_path: Path) -> None:
    """A name that the Hub does not allow is bad input, not an unreachable network."""
    pytest.importorskip("huggingface_hub")
    with pytest.raises(UserError, match="org/na--me: not a name the Hub can have"):
        provision(custom("qa", "org/na--me"), tmp_path, offline=True)
