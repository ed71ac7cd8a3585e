"""Who is counted together: simulators and observations apart, twins told of."""

import dataclasses

import pytest

from planet_rssm import config
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation import groups
from planet_rssm.evaluation.groups import Evaluated, warn_of_few

SPEC = EnvSpec("dmc/cup", {}, 1, 1, 0.1, 1000, "raycast", "mujoco 3")
SEEN, STATE = "raycast 32x32 pixels", "the simulator's state"


def run(
    returns: float, *overrides: str, checkpoint: str | None = "last", task: str = "dmc/cup"
) -> Evaluated:
    episodes = [{"return": returns}, {"return": returns}]
    told = {"run": "it", "checkpoint": checkpoint, "episodes": episodes}
    return Evaluated(config.load("planet", overrides), dataclasses.replace(SPEC, id=task), told, {})


GAUSS, DISCRETE = run(3), run(2, "rssm.latent=categorical")
SIMULATOR = run(900, "planner.name=icem", "planner.elites=9", checkpoint=None)


@pytest.mark.parametrize("key", [None, "rssm.latent"])
def test_a_simulator_is_no_seed_of_a_model_and_has_no_latent(key):
    runs = [SIMULATOR, GAUSS, DISCRETE]
    names = groups.labels(runs, key)
    assert names == ["simulator, icem", "rssm.latent=gaussian", "rssm.latent=categorical"]
    compared = groups.improvements(groups.cells(runs, names, [STATE, SEEN, SEEN], []))
    assert [(pair["group"], pair["over"], pair["probability"]) for pair in compared] == [
        (names[0], names[1], 1), (names[0], names[2], 1), (names[1], names[2], 1),
    ]  # fmt: skip
    assert groups.labels([SIMULATOR], key) == ["simulator, icem"]


def test_what_saw_the_same_is_compared():
    found = groups.cells([GAUSS, run(0), DISCRETE], ["g", "g", "d"], [SEEN, "egl", SEEN], [])
    [pair] = groups.improvements(found)
    assert pair["probability"] == 1 and pair["tasks"] == ["dmc/cup"]


def test_a_task_seen_in_two_ways_is_not_two_tasks():
    runs, seen = [run(5), run(7), run(9, task="dmc/reacher")], [SEEN, "egl", SEEN]
    [over_tasks] = groups.aggregates(groups.cells(runs, ["g"] * 3, seen, []), "max")
    assert (over_tasks["observation"], over_tasks["tasks"]) == (SEEN, ["dmc/cup", "dmc/reacher"])
    assert over_tasks["mean"] == pytest.approx(0.007)


def test_twins_are_told_of(caplog):
    groups.warn_of_twins(groups.cells([run(1), run(2, "seed=1")], ["g", "g"], [SEEN] * 2, []))
    assert not caplog.messages
    groups.warn_of_twins(groups.cells([run(1), run(2)], ["g", "g"], [SEEN] * 2, []))
    assert "dmc/cup, g: several runs of seed 0" in caplog.text


def test_few_seeds_are_told_how_often_their_interval_holds(caplog):
    groups = [
        {"group": name, "seeds": seeds} for name, seeds in (("a", 3), ("b", 5), ("c", 1), ("d", 10))
    ]
    warn_of_few([*groups, groups[0]])
    several, single = (record.getMessage() for record in caplog.records)
    assert "95 % of cases (a: 3 seeds, about 75 %, b: 5 seeds, about 83 %); t95" in several
    assert single.startswith("one seed (c): ")
    caplog.clear()
    warn_of_few(groups[3:])
    assert not caplog.records
