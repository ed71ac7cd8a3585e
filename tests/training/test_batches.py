"""Batches made ahead are the same, and their errors come where they would have come."""

import threading

import pytest

from planet_rssm.training.batches import Batches


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_come_in_order_wherever_they_are_made(ahead):
    threads = []

    def draw(number: int) -> int:
        threads.append(threading.current_thread() is threading.main_thread())
        return 10 * number

    with Batches(draw, ahead=ahead) as batches:
        taken = []
        for number in range(5, 9):
            taken.append(batches.take(number))
            batches.begin(number + 1)
            batches.wait()
    assert taken == [50, 60, 70, 80]
    assert threads == ([True, False, False, False, False] if ahead else [True] * 4)


def test_another_batch_than_the_one_that_was_begun_is_made_anew():
    with Batches(lambda number: number, ahead=True) as batches:
        batches.begin(3)
        assert batches.take(1) == 1


def test_an_error_in_the_thread_is_raised_where_the_batch_is_taken():
    before = threading.active_count()

    def draw(number: int) -> int:
        if number == 2:
            raise OSError("gone")
        return number

    with Batches(draw, ahead=True) as batches:
        assert batches.take(1) == 1
        batches.begin(2)
        batches.wait()
        with pytest.raises(OSError, match="gone"):
            batches.take(2)
    assert threading.active_count() == before
