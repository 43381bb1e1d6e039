from __future__ import annotations

import asyncio
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.server.caching.cache import MemoryCache, cost, identity, key, pack, unpack

NEAR: tuple[Any, ...] = (
    0,
    0.0,
    -0.0,
    False,
    None,
    "",
    "0",
    [],
    {},
    [0],
    [False],
    "null",
    {"a": 0},
    {"a": None},
    1,
    True,
    1.0,
    "1",
)
"""Values that are easily mistaken for each other."""
REQUESTS = st.dictionaries(st.sampled_from(("a", "b", "text")), st.sampled_from(NEAR), max_size=3)
ANSWERS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@dataclass(frozen=True)
class Facts:
    """What is known of a loaded target."""

    task: str = "sentiment"
    digest: str = "d1"
    backend: str = "onnxruntime"
    optimization: str = "fp32"


SERVED = identity(Facts())


def strictly(value: Any) -> Any:
    """A value that tells 1 from True and 1.0, as JSON does and Python's == does not."""
    if isinstance(value, dict):
        return {name: strictly(inner) for name, inner in value.items()}
    return [strictly(inner) for inner in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@given(REQUESTS, REQUESTS)
def test_two_requests_share_a_key_only_if_they_are_the_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Keys are equal if and only if the requests are, value by value and type by type."""
    assert (key(SERVED, left) == key(SERVED, right)) == (strictly(left) == strictly(right))


@given(REQUESTS, st.randoms(use_true_random=False))
def test_the_order_of_parameters_does_not_matter(request: dict[str, Any], draw: Any) -> None:
    """The same parameters in another order are the same request."""
    shuffled = list(request.items())
    draw.shuffle(shuffled)
    assert key(SERVED, dict(shuffled)) == key(SERVED, request)


@pytest.mark.parametrize("other", ["task", "digest", "backend", "optimization"])
def test_everything_that_determines_an_answer_is_in_its_key(other: str) -> None:
    """Another task, model, backend or optimization never finds this one's answers."""
    request = {"text": "fine"}
    changed = replace(Facts(), **{other: "another"})
    assert key(identity(changed), request) != key(SERVED, request)


def test_parts_of_a_key_cannot_be_pushed_over_their_borders() -> None:
    """What stands in one part cannot pass for the beginning of the next."""
    assert identity(Facts(task="a", digest="b")) != identity(Facts(task='a","b', digest=""))
    assert key("x", {"text": "y"}) != key('x\n{"text":"y"}', {})


@pytest.mark.parametrize("text", ["\ud800", "e\u0301", "\u00e9", "\0", "\U0001f600"])
def test_any_text_has_a_key_of_its_own(text: str) -> None:
    """Lone surrogates, and texts that look alike but are not, can be asked for."""
    others = {key(SERVED, {"text": other}) for other in ("", "e", "?", "\u00e9" if text != "\u00e9" else "e\u0301")}
    assert key(SERVED, {"text": text}) not in others


def test_a_request_that_is_no_json_has_no_key() -> None:
    """A value that is not finite is refused; it would not equal itself."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        key(SERVED, {"temperature": float("nan")})


@settings(max_examples=50)
@given(ANSWERS)
def test_an_answer_comes_back_as_it_was(answer: dict[str, Any]) -> None:
    """Packed and unpacked, an answer is what JSON makes of it, floats to the last digit."""
    assert unpack(pack(answer)) == answer


@pytest.mark.parametrize("junk", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b"\x80\x04K\x01."])
def test_what_is_no_answer_is_none(junk: bytes) -> None:
    """Whatever somebody else has put into a shared store, pickles among it, is read as nothing."""
    assert unpack(junk) is None


@given(
    st.integers(0, 4) | st.integers(600, 2500),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.binary(max_size=400)), max_size=60),
)
def test_a_memory_cache_is_the_simplest_lru_within_its_bytes(
    max_bytes: int, steps: list[tuple[str, bytes | None]]
) -> None:
    """Whatever is put and got: never more bytes than allowed, and what is forgotten is what was used longest ago."""
    cache, model = MemoryCache(max_bytes), OrderedDict[str, bytes]()

    async def main() -> None:
        for name, value in steps:
            if value is None:
                assert await cache.get(name) == model.get(name)
                if name in model:
                    model.move_to_end(name)
                continue
            await cache.put(name, value)
            model.pop(name, None)
            if cost(name, value) <= max_bytes:
                model[name] = value
            while sum(cost(*entry) for entry in model.items()) > max_bytes:
                model.popitem(last=False)
            assert cache.bytes == sum(cost(*entry) for entry in model.items()) <= max_bytes
            assert len(cache) == len(model)
        await cache.close()
        assert (cache.bytes, len(cache)) == (0, 0)

    asyncio.run(main())


def test_what_was_read_last_is_forgotten_last() -> None:
    """Of three answers of which two fit, the one that nobody has asked for since goes."""

    async def main() -> None:
        cache = MemoryCache(2 * cost("a", b"1"))
        await cache.put("a", b"1")
        await cache.put("b", b"2")
        assert await cache.get("a") == b"1"
        await cache.put("c", b"3")
        assert [await cache.get(name) for name in "abc"] == [b"1", None, b"3"]

    asyncio.run(main())


@pytest.mark.parametrize("fillings", [1, 3])
def test_the_bound_is_one_of_real_memory(fillings: int) -> None:
    """Filled, and refilled, a cache takes no more memory than it was given, and makes use of half of it at least."""

    async def main() -> int:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        cache = MemoryCache(1 << 20)
        for number in range(fillings * 3000):
            await cache.put(key(SERVED, {"n": number}), pack({"label": "positive", "score": number}))
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cache.bytes > 0.99 * cache.max_bytes
        return after - before

    assert 0.5 <= asyncio.run(main()) / (1 << 20) <= 1
