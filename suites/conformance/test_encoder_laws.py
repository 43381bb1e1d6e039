"""Laws of encoders, whatever their engine and optimization."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from fixtures import guest
from fixtures.provision import Target
from fixtures.quality import alike, nearly, well_formed
from targets.encoding import as_encoder
from targets.registry import optimizations

pytestmark = pytest.mark.families("encoder")

few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few_as_drawn = settings(few, max_examples=8, phases=[Phase.generate])
"""Without a search for the smallest failure, which says little of an order and costs hundreds of calls."""
texts = st.text(st.characters(codec="utf-8"), max_size=200)
ODD = (
    "",
    " ",
    "\n\t ",
    "?",
    "🙂🙃 naïve café — “quoted”",
    "東京は夜の七時。",
    "مرحبا بالعالم",
    "e\u0301\u0301\u0301 combining",
    "null \x00 byte",
    "\u202eright to left",
    "a" * 1000,
    "word " * 5_000,
)


@few
@given(data=st.data())
def test_any_text_has_an_answer(target: Target, data: st.DataObject) -> None:
    """Any text, of any script, is answered, and the answer is well-formed."""
    batch = data.draw(
        st.lists(st.fixed_dictionaries(dict.fromkeys(fields_of(target), texts)), min_size=1, max_size=4), label="batch"
    )
    well_formed(target, batch, target.run(batch))


def test_odd_texts_have_an_answer(target: Target) -> None:
    """Empty, blank, very long and exotic texts are answered without harm."""
    batch = [target.task.ask(text) for text in ODD]
    well_formed(target, batch, [answer for part in target.run_each([[one] for one in batch]) for answer in part])


def test_batch_invariance(target: Target) -> None:
    """A request has the same answer alone and in a batch: padding and neighbours leave no trace."""
    batch = list(target.subject.mix)
    alone = [answer for part in target.run_each([[request] for request in batch]) for answer in part]
    together = target.run(batch)
    alike(target, batch, alone, together, "alone and in a batch of 32")
    for one, other in zip(alone, together, strict=True):
        should, got = ((answer["tokens"], answer["truncated"]) for answer in (one, other))
        assert got == should, f"got {got} (tokens, truncated) in a batch of 32, should be {should} as alone"


def test_padding_leaves_logits_alone(target: Target) -> None:
    """Padding changes no logit beyond rounding."""
    mix = sorted(target.subject.mix, key=lambda request: sum(map(len, request.values())))
    short, long = mix[0], mix[-1]
    alone, padded = target.logits([short])[0], target.logits([short, long])[0]
    nearly(alone, padded, optimizations[target.case.optimization], "alone and padded to its neighbour's length")


@few_as_drawn
@given(data=st.data())
def test_batch_order(target: Target, data: st.DataObject) -> None:
    """Answers come in the order of the requests, whatever that order is."""
    batch = list(target.subject.mix[:8])
    order = data.draw(st.permutations(range(len(batch))), label="order")
    assume(order != sorted(order))
    straight, shuffled = target.run(batch), target.run([batch[index] for index in order])
    alike(target, [batch[index] for index in order], [straight[index] for index in order], shuffled, "in another order")


def test_truncation_is_reported(target: Target) -> None:
    """An input longer than the model says that it was cut (or was read in windows), and a short one does not."""
    fields = fields_of(target)
    short = dict.fromkeys(fields, "Short text.")
    long = {**short, fields[-1]: "word " * 3000}
    brief, cut = target.run([short])[0], target.run([long])[0]
    assert not brief["truncated"], f"got truncated for {short}, should not be"
    assert cut["truncated"] or cut["tokens"] >= 3000, (
        f"3,000 words went in, {cut['tokens']} tokens were read, and truncated is {cut['truncated']}; should be true"
    )


@pytest.mark.tasks("sentiment", "ner")
def test_cut_text_answers_like_its_beginning(target: Target) -> None:
    """What lies beyond the model's length does not matter, and what lies within it does count."""
    text = " ".join(request["text"] for request in target.subject.mix * 3)
    cut, longer = target.run([{"text": text}])[0], target.run([{"text": text + " and so on" * 50}])[0]
    assert cut["truncated"], f"got not truncated for {len(text.split())} words, should be"
    assert cut["tokens"] == longer["tokens"]
    assert target.task.same(cut, longer), f"got {longer}, should be {cut}"


@pytest.mark.tasks("ner", "qa")
def test_spans_count_characters(target: Target) -> None:
    """Spans count characters: eight spaces of three bytes each move them as far as eight plain ones."""
    *_, last = fields_of(target)
    probes = [example.request for example in target.subject.examples[:32]]
    plain, wide = (
        target.run_each([[{**request, last: space * 8 + request[last]}] for request in probes])
        for space in (" ", "\u3000")
    )
    same = sum(target.task.same(a, b) for (a,), (b,) in zip(plain, wide, strict=True))
    # a tokenizer that works on bytes sees another text here, so some answers may differ; miscounted, all spans do
    assert same > len(probes) // 2, f"{same} of {len(probes)} spans are the same behind plain and ideographic spaces"


@pytest.mark.tasks("qa")
@pytest.mark.usefixtures("meaningful")
def test_answer_beyond_the_first_window(target: Target) -> None:
    """An answer far behind the first window is found in the original text."""
    filler = "The afternoon was quiet and nothing of note happened in the valley. " * 40
    found = 0
    probes = [example for example in target.subject.examples if len(example.request["context"]) < 300][:20]
    for example in probes:
        context = filler + example.request["context"]
        answer = target.run([{**example.request, "context": context}])[0]
        assert answer["windows"] > 1, f"got {answer['windows']} window for {len(context)} characters"
        found += answer["start"] >= len(filler)
    assert found > len(probes) // 2, f"{found} of {len(probes)} answers lie in the relevant part behind the filler"


def test_calls_leak_nothing(target: Target) -> None:
    """Repeated calls do not grow the process."""
    batches = [[request] for request in target.subject.mix[:16]] * 8
    target.run_each(batches)
    before = target.call(guest.settled_mb)
    target.run_each(batches)
    grown = target.call(guest.settled_mb) - before
    assert grown < 8, f"{len(batches)} calls grew the process by {grown:.1f} MB, should be < 8 MB"


def fields_of(target: Target) -> tuple[str, ...]:
    """The keys of a request."""
    return as_encoder(target.task).fields
