"""Rounds of search follow what plans really take."""

from planet_rssm.agent import RoundTimes
from planet_rssm.control.budget import RoundBudget

TIMES = RoundTimes((10.0, 20.0, 30.0))


def rounds_of(budget: RoundBudget, takes, plans: int) -> list[int]:
    """Make so many plans that take `takes(rounds, number)` ms; return the rounds of each."""
    made = []
    for number in range(plans):
        assert budget.rounds is not None
        made.append(budget.rounds)
        budget.note(takes(budget.rounds, number))
    return made


def test_what_is_in_time_stays() -> None:
    assert set(rounds_of(RoundBudget(TIMES, 25.0), lambda rounds, _: 10 * rounds, 200)) == {2}


def test_one_late_plan_changes_nothing() -> None:
    late = lambda rounds, number: 99.0 if number % 20 == 0 else 1.0  # noqa: E731
    assert set(rounds_of(RoundBudget(TIMES, 25.0), late, 200)) == {2}


def test_a_machine_that_has_become_slow_does_less_and_tries_again_ever_more_rarely() -> None:
    """Two plans at each try are late."""
    made = rounds_of(RoundBudget(TIMES, 25.0), lambda rounds, _: 20 * rounds, 600)
    tried = [number for number in range(1, 600) if (made[number - 1], made[number]) == (1, 2)]
    assert made[:3] == [2, 2, 1]
    assert [after - before for before, after in zip(tried, tried[1:], strict=False)] == [162, 322]
    assert made.count(2) == 2 + 2 * len(tried)


def test_a_machine_that_is_free_again_does_all() -> None:
    made = rounds_of(
        RoundBudget(TIMES, 35.0),
        lambda rounds, number: 10 * rounds * (3 if number < 50 else 1),
        400,
    )
    assert made[0] == 3 and min(made) == 1 and made[-1] == 3


def test_one_round_is_made_however_late() -> None:
    made = rounds_of(RoundBudget(TIMES, 25.0), lambda rounds, _: 1000.0, 100)
    assert set(made[4:]) <= {1, 2} and made[-1] == 1


def test_without_a_budget_all_rounds_are_made() -> None:
    budget = RoundBudget(TIMES, None)
    budget.note(1e9)
    assert budget.rounds is None
