import pytest

from rewards.errors import ConfigError
from rl.stream import Stream


def test_each_pass_visits_every_document_once_in_another_order() -> None:
    stream = Stream(n=7, seed=3)
    first, second = stream.next(7), stream.next(7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_the_position_restores_the_stream() -> None:
    stream = Stream(n=11, seed=5)
    for _ in range(4):
        stream.next(3)
    resumed = Stream(n=11, seed=5, position=stream.position)
    assert [resumed.next(3) for _ in range(9)] == [stream.next(3) for _ in range(9)]


def test_the_order_depends_on_the_seed_and_never_changes() -> None:
    assert Stream(n=6, seed=0).next(6) == Stream(n=6, seed=0).next(6)
    assert Stream(n=50, seed=0).next(50) != Stream(n=50, seed=1).next(50)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_no_document_twice_in_one_step_even_where_a_pass_ends(count: int) -> None:
    stream = Stream(n=5, seed=1)
    for _ in range(20):
        indexes = stream.next(count)
        assert len(set(indexes)) == count


def test_excluded_documents_are_not_drawn() -> None:
    stream = Stream(n=5, seed=1)
    first = stream.next(3)
    assert set(stream.next(2, exclude=first)) == set(range(5)) - set(first)


def test_more_documents_than_there_are_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"batch\.documents_per_step.*only 3"):
        Stream(n=3, seed=0).next(4)
