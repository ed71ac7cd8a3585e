"""The simulator as a dynamics: several episodes at once, and a policy that wins with it."""

import doctest

import numpy as np
import pytest
import torch

import planet_rssm.simulator.dynamics
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings, PlannerSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.evaluation.protocol import play
from planet_rssm.planners import CEM, ICEM
from planet_rssm.simulator.dynamics import SimulatorDynamics, SimulatorPolicy
from planet_rssm.simulator.local import LocalPool
from planet_rssm.simulator.physics import Simulator


def settings_of(task, **settings) -> EnvSettings:
    return registry.resolve(EnvSettings(id=task, renderer="none", observe="vectors", **settings))


def episodes(task, count) -> list[DMControlEnv]:
    envs = [DMControlEnv(settings_of(task)) for _ in range(count)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    return envs


@pytest.mark.parametrize(
    "task", ["reacher-easy", "finger-turn_easy"]
)  # both draw a target in each episode
def test_batched_equals_separate_equals_stepping(task):
    envs = episodes(task, 2)
    dynamics = SimulatorDynamics([Simulator(env, threads=1) for env in envs])
    state, generator = dynamics.state(), torch.Generator().manual_seed(0)
    actions = torch.rand(2, 3, 4, 2, generator=generator, dtype=torch.float64) * 2 - 1
    together = dynamics.rollout(state, actions)
    assert together.reward.shape == together.discount.shape == (2, 3, 4)
    assert together.last.shape == (2, 3, state.shape[1])
    assert together.reward.dtype == state.dtype == torch.float64
    for row, env in enumerate(envs):
        alone = SimulatorDynamics([Simulator(env, threads=2)]).rollout(
            state[row, None], actions[row, None]
        )
        for one, both in zip(alone[:3], together[:3], strict=True):
            assert torch.equal(one[0], both[row])
        stepped = [env.step(action)[1] for action in actions[row, 1].numpy()]
        np.testing.assert_allclose(together.reward[row, 1], stepped, rtol=0, atol=1e-9)


def test_float32_actions_get_float32_rewards():
    dynamics = SimulatorDynamics(
        [Simulator(env, threads=1) for env in episodes("cartpole-swingup", 1)]
    )
    rollout = dynamics.rollout(dynamics.state(), torch.zeros(1, 2, 3, 1))
    assert rollout.reward.dtype == rollout.discount.dtype == torch.float32
    assert rollout.last.dtype == torch.float64  # of half the digits nothing could be followed on


def test_a_wrong_number_of_rows_is_refused():
    dynamics = SimulatorDynamics(
        [Simulator(env, threads=1) for env in episodes("cartpole-swingup", 1)]
    )
    with pytest.raises(PlanetError, match="state of 2 rows: must be 1"):
        dynamics.rollout(dynamics.state().repeat(2, 1), torch.zeros(2, 2, 3, 1))


def test_what_the_planner_expects_is_what_it_gets():
    """A plan's value is the return of its sequence, bit for bit: nothing is drawn or learned."""
    [env] = episodes("cheetah-run", 1)
    dynamics = SimulatorDynamics([Simulator(env, threads=1)])
    planner = ICEM(
        PlannerSettings(name="icem", horizon=4, candidates=20, iterations=2, elites=5), 6
    )
    policy = SimulatorPolicy([Simulator(env, threads=1)], planner)
    nothing, first = np.zeros((1, 6), np.float32), np.ones(1, bool)
    assert policy({}, nothing, first).shape == (1, 6)
    search = planner.prepare(dynamics, lambda rollout: rollout.reward.sum(-1))
    plan, _ = search.plan(
        dynamics.state(), planner.initial(1), torch.tensor([True]), torch.Generator().manual_seed(0)
    )
    total = sum(env.step(action)[1] for action in plan.sequence[0].numpy())
    assert total == pytest.approx(plan.value.item(), abs=1e-9)


def test_a_search_in_the_simulator_beats_doing_nothing():
    pool = LocalPool(settings_of("reacher-easy", time_limit=80))
    planner = CEM(PlannerSettings(horizon=8, candidates=30, iterations=3, elites=6), 2)
    policy = SimulatorPolicy([Simulator(pool.env, threads=1)], planner)
    returns = [result.episode_return for result in play(pool, policy, [1002, 1003])]
    again = [result.episode_return for result in play(pool, SimulatorPolicy(
        [Simulator(pool.env, threads=1)], planner), [1002, 1003])]  # fmt: skip
    idle = [
        result.episode_return for result in play(pool, lambda *_: np.zeros((1, 2)), [1002, 1003])
    ]
    assert returns == again
    assert np.mean(returns) > np.mean(idle) + 20


def test_a_simulation_that_breaks_down_ends_in_one_line():
    pool = LocalPool(settings_of("cartpole-swingup"))
    pool.reset({0: 1})
    pool.env.inner.physics.data.qvel[:] = 1e11
    with pytest.raises(
        PlanetError, match="^dmc/cartpole-swingup: the simulation broke down"
    ) as caught:
        pool.step({0: np.zeros(1, np.float32)})
    assert "\n" not in str(caught.value)


def test_the_example_reaches_the_target():
    assert doctest.testmod(planet_rssm.simulator.dynamics, raise_on_error=True).attempted > 5
