from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.metrics import METRICS
from fixtures.spans import Span
from fixtures.telemetry.energy import IdlePower, energy, growth, idle_power, integral, stretches
from fixtures.telemetry.energy_metrics import Work, measurements
from fixtures.telemetry.options import Price, price
from fixtures.telemetry.window import Row, Trouble, Window, window
from fixtures.verdict import Measurement
from suites.meta.sensors import MS, SECOND, rows, steady
from targets.api import UserError

REST = IdlePower(4.0, 20)
WATTS = st.floats(0, 1000)
MOMENTS = st.integers(0, 10 * SECOND)
SERIES = st.lists(st.tuples(MOMENTS, WATTS), min_size=1, max_size=40, unique_by=lambda point: point[0]).map(sorted)
LATE = 10**17
"""A machine that has been up for three years: ns that no float holds exactly."""


def whole(found: list[Row]) -> Window:
    return window(found, found[0][0], found[-1][0], 20)


def spans(*times: tuple[str, float, float]) -> list[Span]:
    return [Span(phase, round(start * 1e9), round(end * 1e9)) for phase, start, end in times]


def values(found: list[Measurement]) -> dict[str, float]:
    return {key: value for each in found for key, value in each.numbers().items()}


@given(watts=WATTS, start=MOMENTS, length=st.integers(0, 10 * SECOND), stamps=st.sets(MOMENTS, min_size=1, max_size=30))
def test_constant_power_is_power_times_time(watts: float, start: int, length: int, stamps: set[int]) -> None:
    """However it is sampled, constant power over a time is their product."""
    series = [(LATE + at, watts) for at in sorted(stamps)]
    found = integral(series, LATE + start, LATE + start + length)
    assert found == pytest.approx(watts * length / 1e9, rel=1e-9, abs=1e-9)


@given(series=SERIES, moments=st.lists(MOMENTS, min_size=3, max_size=3).map(sorted))
def test_the_integral_adds_up(series: list[tuple[int, float]], moments: list[int]) -> None:
    """Two spans that touch draw together what the one over both draws."""
    first, middle, last = moments
    parts = integral(series, first, middle) + integral(series, middle, last)
    assert parts == pytest.approx(integral(series, first, last), rel=1e-9, abs=1e-6)


@given(series=SERIES, moments=st.lists(MOMENTS, min_size=2, max_size=2).map(sorted))
def test_the_integral_lies_within_the_readings(series: list[tuple[int, float]], moments: list[int]) -> None:
    """Mean power is never beyond the least or the most that was read."""
    start, end = moments
    found, seconds = integral(series, start, end), (end - start) / 1e9
    powers = [value for _, value in series]
    assert min(powers) * seconds - 1e-6 <= found <= max(powers) * seconds + 1e-6


def test_edges_are_taken_in_proportion() -> None:
    """Where power rises, a span between two samples has the power of its place, not that of a sample."""
    ramp = [(0, 0.0), (SECOND, 10.0)]
    assert integral(ramp, 250 * MS, 750 * MS) == pytest.approx(2.5)
    assert integral(ramp, 0, 500 * MS) == pytest.approx(1.25)
    assert integral(ramp, SECOND, 2 * SECOND) == pytest.approx(10.0)
    assert growth([(0, 100.0), (SECOND, 140.0)], 250 * MS, 750 * MS) == pytest.approx(20.0)


def test_nothing_read_is_no_energy() -> None:
    """An integral over no reading is a mistake, not 0 J."""
    with pytest.raises(ValueError, match="nothing was read"):
        integral([], 0, 1)
    with pytest.raises(ValueError, match="nothing was read"):
        growth([], 0, 1)


def test_energy_is_that_of_the_timed_spans() -> None:
    """Ten watts at work and four at rest: gross is what was drawn in the spans, net is less the rest of that time."""
    at_work = rows({"power_w": 10.0 if 20 <= index <= 60 else 4.0} for index in range(81))
    found = energy(whole(at_work), spans(("measure", 1.0, 2.0), ("measure", 2.5, 3.0)))
    assert found.joules == pytest.approx(15.0)
    assert found.seconds == 1.5
    assert found.net(REST).joules == pytest.approx(9.0)


def test_the_metrics_of_a_generator() -> None:
    """A request's energy has its parts, a token's leaves reading the prompt out of decode, and all have their unit."""
    reading = {"power_w": 12.0}
    found = measurements(
        whole(rows([reading] * 81)),
        spans(("warm-up", 0.0, 1.0), ("prefill", 1.0, 1.5), ("decode", 1.5, 3.5)),
        Work(requests=2, tokens=50),
        REST,
        Price(0.30, "EUR"),
        "jetson",
    )
    assert values(found) == pytest.approx(
        {
            "energy_j_per_request": 15.0,
            "energy_j_per_request.prefill": 3.0,
            "energy_j_per_request.decode": 12.0,
            "energy_net_j_per_request": 10.0,
            "energy_net_j_per_request.prefill": 2.0,
            "energy_net_j_per_request.decode": 8.0,
            "energy_j_per_token": 0.6,
            "energy_j_per_token.decode": 0.48,
            "energy_net_j_per_token": 0.4,
            "energy_net_j_per_token.decode": 0.32,
            "power_w": 12.0,
            "cost_per_1000_requests": 15.0 * 1000 / 3.6e6 * 0.30,
        }
    )
    assert found[0].how == "the board's input rail at 20 Hz over 2.5 s of 2 requests and 50 tokens"
    assert found[-1].how.endswith("; 0.3 EUR a kWh")
    assert {each.metric: each.unit for each in found}["cost_per_1000_requests"] == "EUR"
    assert all(set(each.statistics) <= set(METRICS[each.metric].statistics) for each in found)


def test_a_package_counter_stands_in_and_says_so() -> None:
    """Without a power sensor RAPL's growth is taken, and named as what it is."""
    counted = whole(rows({"rapl_j": 1000 + 8.0 * index / 20} for index in range(61)))
    found = measurements(counted, spans(("measure", 0.5, 2.5)), Work(4), idle_power(counted))
    assert values(found)["energy_j_per_request"] == pytest.approx(4.0)
    assert values(found)["energy_net_j_per_request"] == pytest.approx(0.0, abs=1e-9)
    assert found[0].how.startswith("RAPL, the processor packages only at 20 Hz")
    assert {each.metric for each in found} == {"energy_j_per_request", "energy_net_j_per_request", "power_w"}


def test_energy_that_was_not_heard_is_absent() -> None:
    """Below 90 % of the timed part covered there is no energy, and the reason says how much there was."""
    gappy = whole([row for row in steady(4, power_w=9.0) if not SECOND < row[0] < 1400 * MS])
    timed = spans(("measure", 0.5, 2.5))
    assert energy(gappy, timed).joules is None
    assert energy(gappy, timed).reason == "power_w was read over 85% of the timed part, and 90% is needed"
    assert energy(gappy, spans(("measure", 1.5, 3.9))).joules == pytest.approx(21.6)


def test_spans_beyond_the_window_are_not_heard() -> None:
    """What a span has outside of the window counts as time without a sensor."""
    assert energy(whole(steady(1, power_w=9.0)), spans(("measure", 0.0, 2.0))).joules is None


def test_short_work_is_absent() -> None:
    """Bursts shorter than two samples, far apart, are smeared by sampling: no energy is claimed of them."""
    heard = whole(steady(4, power_w=9.0))
    bursts = spans(*(("prefill", 0.5 * index, 0.5 * index + 0.02) for index in range(1, 7)))
    assert energy(heard, bursts).reason == (
        "timed stretches of 20 ms are too short for samples every 50 ms; raise --telemetry-hz"
    )
    together = spans(*(("measure", 1 + 0.02 * index, 1 + 0.02 * index + 0.019) for index in range(100)))
    assert energy(heard, together).joules == pytest.approx(9.0 * 1.9)


def test_a_phase_too_short_leaves_the_whole() -> None:
    """Where prefill cannot be told from decode, the request's energy still can."""
    timed = [
        span
        for index in range(4)
        for span in spans(
            ("prefill", index * 0.8 + 0.1, index * 0.8 + 0.11), ("decode", index * 0.8 + 0.11, index * 0.8 + 0.8)
        )
    ]
    request = measurements(whole(steady(4, power_w=9.0)), timed, Work(4, 100), REST)[0]
    assert request.estimate("").value == pytest.approx(9.0 * 0.7)
    assert request.estimate("prefill").value is None
    assert "too short" in (request.estimate("prefill").reason or "")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Window(0, SECOND, 0.0), "telemetry is off"),
        (whole(steady(3, gpu_load=0.5)), "this device has none that the suite knows"),
        (window(steady(3, gpu_load=1.0), 0, 3 * SECOND, 20, {"power_w": "no INA3221"}), "no INA3221"),
        (
            window(steady(3, power_w=7.0), 0, 3 * SECOND, 20, {}, [Trouble("power_w", 0, "the same 7", stuck=True)]),
            "power_w: the same 7",
        ),
    ],
)
def test_energy_says_why_there_is_none(found: Window, reason: str) -> None:
    """Off, without a sensor, or with one that is stuck: each energy metric is absent with that reason."""
    for each in measurements(found, spans(("measure", 0.5, 2.5)), Work(1, 1), REST, Price(1.0)):
        assert each.estimate("").value is None
        assert reason in (each.estimate("").reason or "")


def test_no_timed_work_is_no_energy() -> None:
    """Without a timed span there is nothing to tell the energy of."""
    found = measurements(whole(steady(3, power_w=7.0)), spans(("load", 0, 1)), Work(1), REST)
    assert found[0].estimate("").reason == "no work was timed"


def test_unknown_idle_power_leaves_gross() -> None:
    """Net energy needs power at rest; gross does not."""
    found = measurements(
        whole(steady(3, power_w=7.0)), spans(("measure", 0.5, 2.5)), Work(1), IdlePower(None, reason="it was warm")
    )
    assert values(found) == pytest.approx({"energy_j_per_request": 14.0, "power_w": 7.0})
    assert found[1].estimate("").reason == "idle power is not known: it was warm"


def test_idle_power_is_the_median_at_rest() -> None:
    """A lone spike at rest does not move idle power; a device at work has none."""
    at_rest = rows({"power_w": 30.0 if index == 7 else 5.0, "cpu_busy_s": index / 20 * 0.1} for index in range(21))
    assert idle_power(whole(at_rest)) == IdlePower(5.0, 21)
    busy = rows({"power_w": 5.0, "cpu_busy_s": index / 20 * 1.5} for index in range(21))
    assert idle_power(whole(busy)).reason == "1.5 CPU cores were busy when it was taken: end what else runs"
    drawing = idle_power(whole(steady(1, power_w=5.0, gpu_load=0.6)))
    assert drawing.reason == "0 CPU cores and 60% of the GPU were busy when it was taken: end what else runs"
    assert idle_power(whole(steady(1, cpu_mhz=1.0))).reason == "no power sensor"
    silent = window(steady(0.2, power_w=5.0), 0, SECOND, 20)
    assert silent.coverage() < 0.9
    assert "was not read for" in idle_power(silent).reason


def test_stretches_join_what_a_sensor_cannot_part() -> None:
    """Spans that follow each other within the slack are one stretch, in whatever order they come."""
    found = stretches([Span("decode", 200, 300), Span("prefill", 0, 100), Span("decode", 105, 150)], 10)
    assert found == [(0, 150), (200, 300)]


@pytest.mark.parametrize(
    ("text", "amount", "currency"), [("0.30", 0.3, ""), ("0.30 EUR", 0.3, "EUR"), ("28¥", 28, "¥")]
)
def test_a_price_has_an_amount_and_may_have_a_currency(text: str, amount: float, currency: str) -> None:
    """The price of a kWh is written as people write it."""
    assert price(text) == Price(amount, currency)


@pytest.mark.parametrize("text", ["", "EUR", "-0.3", "0.3.1", "1e3 4", "nan", "0,30 EUR"])
def test_a_price_that_is_none_is_refused(text: str) -> None:
    """Anything else is one sentence that shows what was allowed."""
    with pytest.raises(UserError, match=r"should be an amount of 0 or more and its currency, such as 0\.30 EUR"):
        price(text)


def test_work_is_at_least_a_request() -> None:
    """Energy of no request is a mistake of ours."""
    with pytest.raises(ValueError, match="at least one request"):
        Work(0)
