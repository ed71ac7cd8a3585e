"""Which runs are counted together: simulators and observations apart, twins with a warning."""

import dataclasses

import pytest

from planet_rssm import config
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation import groups
from planet_rssm.evaluation.eval_results import RunResult, Training
from planet_rssm.evaluation.groups import Evaluated, Place, warn_of_few
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.published import PLANET_TASKS
from planet_rssm.evaluation.results import ObservationInfo, summary_of
from planet_rssm.evaluation.task_tables import task_tables

SPEC = EnvSpec("dmc/cup", {}, 1, 1, 0.1, 1000, "raycast", "mujoco 3")
PIXELS = "raycast 32x32 pixels"


def run(
    returns: float,
    *overrides: str,
    checkpoint: str | None = "last",
    renderer: str = "raycast",
    **fields: object,
) -> Evaluated:
    settings = config.load("planet", ["env.size=32", *overrides])
    spec = dataclasses.replace(SPEC, renderer=renderer, **fields)
    make = ObservationInfo.of if checkpoint else ObservationInfo.of_state
    episodes = [EpisodeResult(seed, returns, 1000) for seed in (1000, 1001)]
    result = RunResult(
        run="it",
        task=spec.id,
        seed=settings.seed,
        planner=settings.planner.label,
        planner_settings={},
        precision="float32",
        observation=make(settings.env, spec),
        timing={},
        checkpoint=checkpoint,
        training=Training(1000, 1, 1.0),
        test_return=None,
        episodes=episodes,
        summary=summary_of(episodes),
    )
    return Evaluated(settings, spec, result, {})


GAUSS, DISCRETE = run(3), run(2, "rssm.latent=categorical")
SIMULATOR = run(900, "planner.name=icem", "planner.elites=9", checkpoint=None)


@pytest.mark.parametrize("key", [None, "rssm.latent"])
def test_a_simulator_is_no_seed_of_a_model_and_has_no_latent(key):
    runs = [SIMULATOR, GAUSS, DISCRETE]
    names = groups.labels(runs, key)
    assert names == ["simulator, icem", "rssm.latent=gaussian", "rssm.latent=categorical"]
    compared = groups.improvements(groups.cells(runs, names, []))
    assert [(pair.group, pair.over, pair.improvement.probability) for pair in compared] == [
        (names[0], names[1], 1), (names[0], names[2], 1), (names[1], names[2], 1),
    ]  # fmt: skip
    assert groups.labels([SIMULATOR], key) == ["simulator, icem"]


def test_runs_with_the_same_observation_are_compared():
    runs = [GAUSS, run(0, renderer="egl"), DISCRETE]
    [pair] = groups.improvements(groups.cells(runs, ["g", "g", "d"], []))
    assert pair.improvement.probability == 1 and pair.tasks == ["dmc/cup"]


def test_a_task_observed_in_two_ways_is_not_two_tasks():
    runs = [run(5), run(7, renderer="egl"), run(9, id="dmc/reacher")]
    [over_tasks] = groups.aggregates(groups.cells(runs, ["g"] * 3, []), "max")
    assert (over_tasks.observation, over_tasks.tasks) == (PIXELS, ["dmc/cup", "dmc/reacher"])
    assert over_tasks.summary.mean == pytest.approx(0.007)


@pytest.mark.parametrize(
    ("overrides", "labels"),
    [
        (["env.kwargs={}", "env.kwargs={g: 1}"], ["env.kwargs=none", "env.kwargs=g:1"]),
        (["env.drop=[]", "env.drop=speed"], ["env.drop=none", "env.drop=speed"]),
    ],
)
def test_other_environments_of_one_task_are_other_groups(overrides, labels):
    task = "env.id=gym/Pendulum-v1"
    assert groups.labels([run(1, task, setting) for setting in overrides], None) == labels


def test_each_task_may_have_its_own_environment_settings():
    one = run(1, "env.id=gym/Pendulum-v1", "env.kwargs={g: 1}")
    other = run(1, "env.id=gym/Acrobot-v1")
    assert groups.labels([one, other], None) == ["cem", "cem"]


def test_another_environment_is_left_out_of_a_group_by_key(caplog):
    errors = []
    runs = [run(1, kwargs={"g": 1}), run(2, kwargs={"g": 2})]
    [members] = groups.cells(runs, ["g", "g"], errors).values()
    assert members == runs[:1]
    assert "kwargs = {'g': 2}, where it has {'g': 1}, in group g" in errors[0].error


def test_twins_are_warned_of(caplog):
    groups.warn_of_twins(groups.cells([run(1), run(2, "seed=1")], ["g", "g"], []))
    assert not caplog.messages
    groups.warn_of_twins(groups.cells([run(1), run(2)], ["g", "g"], []))
    assert "dmc/cup, g: several runs of seed 0" in caplog.text


def test_a_warning_says_how_often_intervals_of_few_seeds_contain_the_mean(caplog):
    seeds = {"a": 3, "b": 5, "c": 1, "d": 10}
    results = groups.group_results(
        {Place("dmc/cup", PIXELS, name): [GAUSS] * count for name, count in seeds.items()}, None
    )
    warn_of_few([*results, results[0]])
    several, single = (record.getMessage() for record in caplog.records)
    assert "95 % of cases (a: 3 seeds, about 75 %, b: 5 seeds, about 83 %); t95" in several
    assert single.startswith("one seed (c): ")
    caplog.clear()
    warn_of_few(results[3:])
    assert not caplog.records


def test_what_differs_from_task_to_task_alone_makes_no_other_groups(caplog):
    cup, walker = "env.id=dmc/ball_in_cup-catch", "env.id=dmc/walker-walk"
    runs = [run(1, cup), run(2, cup, "seed=1"), run(3, walker, "planner.horizon=9")]
    assert groups.labels(runs, None) == ["cem"] * 3
    groups.warn_of_tasks(runs)
    assert caplog.messages[0].startswith("planner.horizon: differs from task to task")
    other = run(4, walker, "planner.horizon=10")
    assert groups.labels([*runs, other], None)[2:] == ["planner.horizon=9", "planner.horizon=10"]
    caplog.clear()
    groups.warn_of_tasks([*runs, other])
    assert not caplog.messages


TASKS = ("dmc/walker-walk", "dmc/cartpole-swingup", "dmc/hopper-hop")


def tables_of(*tasks: str, **fields: object) -> list[dict]:
    runs = [
        run(100 * (number + 1), f"seed={seed}", id=task, **fields)
        for number, task in enumerate(tasks)
        for seed in (0, 1)
    ]
    grouped = groups.cells(runs, ["g"] * len(runs), [])
    return [table.to_json() for table in task_tables(grouped)]


def test_tasks_stand_beside_planets_and_dreamers_scores():
    (table,) = tables_of(*TASKS)
    assert [row["task"] for row in table["tasks"]] == [TASKS[1], TASKS[0], TASKS[2]]
    cartpole, _, hopper = table["tasks"]
    assert (cartpole["mean"], cartpole["env_steps"]) == (200, 1000)
    planet = cartpole["published"]["PlaNet"]
    assert (planet["score"], planet["steps"]) == (821, 1_000_000) and planet["protocol"]
    assert cartpole["published"]["Dreamer"]["method"] == "DreamerV3"  # of the nearest steps
    assert hopper["published"]["PlaNet"] is None
    assert table["normalised"]["mean"] == pytest.approx(0.2)
    assert table["normalised_published"]["PlaNet"] is None  # it has no score of one of them
    assert table["normalised_published"]["Dreamer"]["mean"] == pytest.approx(
        (0.483 + 0.540 + 0.003) / 3
    )
    assert "dmc/cheetah-run" in table["missing"] and "dmc/walker-walk" not in table["missing"]


def test_over_the_six_tasks_planets_mean_is_that_of_its_table():
    (table,) = tables_of(*PLANET_TASKS)
    six = [821, 832, 662, 700, 930, 951]
    assert table["missing"] == []
    planet = table["normalised_published"]["PlaNet"]
    assert planet["mean"] == pytest.approx(sum(six) / 6000)
    assert planet["iqm"] == pytest.approx((821 + 832 + 700 + 930) / 4000)
    assert table["normalised"]["iqm"] == pytest.approx(0.35)


def test_one_task_or_no_task_of_the_suite_has_no_table():
    assert tables_of("dmc/walker-walk") == []
    assert tables_of("gym/Pendulum-v1", "gym/Acrobot-v1") == []
    assert len(tables_of(*TASKS)) == 1
