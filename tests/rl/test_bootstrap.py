import numpy as np
import pytest

from rl.bootstrap import Bootstrap, Estimate


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.Generator(np.random.PCG64(0)).normal(size=400)
    estimate = Bootstrap(400).ratio(values, np.ones(400))
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.015)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.015)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    held = 0
    for _ in range(100):
        estimate = Bootstrap(80, resamples=400).ratio(generator.binomial(1, 0.7, size=80).astype(float), np.ones(80))
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= 0.7 <= estimate.high
    assert 88 <= held <= 100


def test_the_paired_difference_is_much_tighter_than_two_intervals() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    difficulty = generator.normal(size=200)
    a, b, ones = difficulty, difficulty + 0.1 + 0.01 * generator.normal(size=200), np.ones(200)
    delta = Bootstrap(200).paired_delta((a, ones), (b, ones))
    assert delta.value == pytest.approx(0.1, abs=0.005)
    assert delta.low is not None and delta.high is not None
    assert delta.low > 0.09 and delta.high - delta.low < 0.01


def test_documents_without_the_metric_do_not_count() -> None:
    estimate = Bootstrap(4).ratio(np.array([1.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert estimate.value == 0.5
    assert Bootstrap(4).ratio(np.zeros(4), np.zeros(4)) == Estimate(None, None, None)
    assert Bootstrap(0).ratio(np.zeros(0), np.zeros(0)) == Estimate(None, None, None)


def test_the_same_answers_give_the_same_interval() -> None:
    values = np.arange(50.0)
    assert Bootstrap(50).ratio(values, np.ones(50)) == Bootstrap(50).ratio(values, np.ones(50))


def test_unpaired_lengths_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="expected 3 documents"):
        Bootstrap(3).ratio(np.ones(2), np.ones(2))
