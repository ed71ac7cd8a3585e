"""Filtering and deciding, with no environment at hand."""

import dataclasses
import time

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentCarry, RoundTimes
from planet_rssm.agent.exploration import explore
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import untrained_model

CPU = torch.device("cpu")
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    2,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)
SETTINGS = config.load(
    "planet",
    "env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 planner.candidates=16 "
    "planner.elites=4 planner.iterations=2 planner.horizon=5".split(),
)
B = 3


def agent(**options: object) -> Agent:
    return Agent.build(SETTINGS, SPEC, untrained_model(SETTINGS, SPEC), device=CPU, **options)


def images(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(0, 256, (B, 32, 32, 3), generator=rng, dtype=torch.uint8)}


def first(*rows: int) -> torch.Tensor:
    return torch.tensor([row in rows for row in range(B)])


def begin(made: Agent) -> AgentCarry:
    return made.observe(made.initial(B), images(), torch.zeros(B, 2), first(0, 1, 2))


def test_actions_are_within_bounds_and_noise_is_added_before_the_clip():
    made = agent(exploration_noise=5.0)
    plan, _ = made.decide(begin(made))
    assert plan.action.shape == (B, 2)
    assert (plan.action.abs() <= 1).all()
    assert (
        plan.action.abs() == 1
    ).float().mean() > 0.5  # noise this large nearly always ends at a bound
    quiet, _ = agent().decide(begin(agent()))
    assert torch.equal(quiet.action, quiet.sequence[:, 0])


def test_choices_are_one_hot_and_the_noise_is_the_chance_of_any_other():
    spec = dataclasses.replace(SPEC, discrete=True, action_size=2)
    model = untrained_model(SETTINGS, spec)
    many = 400
    blank = {"image": torch.zeros(many, 32, 32, 3, dtype=torch.uint8)}
    new = torch.ones(many, dtype=torch.bool)
    for noise, expected in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):
        made = Agent.build(SETTINGS, spec, model, device=CPU, exploration_noise=noise)
        plan, _ = made.act(made.initial(many), blank, torch.zeros(many, 2), new)
        assert set(plan.action.unique().tolist()) == {0.0, 1.0} and (plan.action.sum(-1) == 1).all()
        others = (plan.action != plan.sequence[:, 0]).any(-1).float().mean()
        assert others == pytest.approx(expected, abs=0.1 * (noise > 0))


def test_each_group_of_choices_explores_by_itself():
    groups = (2, 4)
    many = 2000
    kept = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(many, 6)
    acted = explore(kept, 0.5, groups, torch.Generator().manual_seed(0))
    assert (acted[:, :2].sum(1) == 1).all() and (acted[:, 2:].sum(1) == 1).all()
    first = acted[:, 0] != 1
    second = acted[:, 4] != 1
    assert first.float().mean() == pytest.approx(0.5 * 1 / 2, abs=0.03)
    assert second.float().mean() == pytest.approx(0.5 * 3 / 4, abs=0.03)
    assert (first & second).float().mean() == pytest.approx(0.25 * 0.375, abs=0.02)
    assert acted[second][:, [2, 3, 5]].mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


def test_equal_seeds_act_equally_and_others_do_not():
    one, same, other = (
        made.decide(begin(made))[0].action for made in (agent(seed=1), agent(seed=1), agent(seed=2))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_row_that_begins_an_episode_forgets_its_past_and_no_other_row_does():
    made = agent()
    carry = made.observe(begin(made), images(1), torch.ones(B, 2), first())
    again = made.observe(carry, images(2), torch.ones(B, 2), first(1))
    fresh = made.observe(
        made.initial(B)._replace(step=carry.step), images(2), torch.zeros(B, 2), first(0, 1, 2)
    )
    torch.testing.assert_close(again.state.deter[1], fresh.state.deter[1])
    assert not torch.allclose(again.state.deter[0], fresh.state.deter[0])


def test_the_planner_learns_once_that_an_episode_began():
    made = agent()
    carry = begin(made)
    assert carry.fresh.all()
    _, carry = made.decide(carry)
    assert not carry.fresh.any()
    carry = made.observe(carry, images(1), torch.zeros(B, 2), first(2))
    carry = made.observe(
        carry, images(2), torch.zeros(B, 2), first()
    )  # observed twice before the next decision
    assert carry.fresh.tolist() == [False, False, True]


def test_a_dropped_frame_advances_the_belief_by_the_prior():
    made = agent()
    carry = begin(made)
    blind = made.observe(carry, None, torch.ones(B, 2), first())
    observed = made.observe(carry, images(1), torch.ones(B, 2), first())
    torch.testing.assert_close(blind.state.deter, observed.state.deter)
    assert not torch.allclose(blind.state.stoch, observed.state.stoch)
    made.decide(blind)


def test_a_dropped_first_frame_still_forgets_the_past():
    made = agent()
    carry = begin(made)
    blind = made.observe(carry, None, torch.ones(B, 2), first(0))
    fresh = made.observe(
        made.initial(B)._replace(step=carry.step), None, torch.zeros(B, 2), first(0, 1, 2)
    )
    torch.testing.assert_close(blind.state.deter[0], fresh.state.deter[0])
    assert not torch.allclose(blind.state.deter[1], fresh.state.deter[1])


def test_an_agent_loads_from_a_run_alone(tmp_path):
    (tmp_path / location.FOLDER).mkdir()
    model = untrained_model(SETTINGS, SPEC)
    checkpoint = Checkpoint(SETTINGS, SPEC, {"env_steps": 5}, dict(model.state_dict()), {})
    checkpoints.save(checkpoint, location.path_of(tmp_path, 5))
    loaded = Agent.load(tmp_path, device="cpu")
    assert loaded.spec == SPEC
    assert torch.equal(
        loaded.decide(begin(loaded))[0].action, agent().decide(begin(agent()))[0].action
    )
    icem = PlannerSettings(name="icem", candidates=20, elites=5, iterations=2, horizon=5)
    loaded = Agent.load(tmp_path, device="cpu", planner=icem)
    plan, carry = loaded.decide(begin(loaded))
    assert plan.sequence.shape == (B, 5, 2)
    assert carry.planner.known.all()
    modes = ["rssm.plan_by=mode", "rssm.filter_by=mode", "planner.horizon=4"]
    loaded = Agent.load(tmp_path, device="cpu", overrides=modes)
    assert (loaded.model.rssm.settings.plan_by, loaded.model.rssm.settings.filter_by) == (
        "mode",
        "mode",
    )
    assert loaded.decide(begin(loaded))[0].sequence.shape == (B, 4, 2)
    with pytest.raises(PlanetError, match="rssm.deter=9: only planner"):
        Agent.load(tmp_path, device="cpu", overrides=["rssm.deter=9"])


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    for name, line in (
        ("cuda:99", "'cuda:99': not usable here"),
        ("tpu", "'tpu': not one of cpu, cuda"),
    ):
        with pytest.raises(PlanetError, match=line):
            (tmp_path / location.FOLDER).mkdir(exist_ok=True)
            checkpoints.save(
                Checkpoint(
                    SETTINGS,
                    SPEC,
                    {"env_steps": 5},
                    dict(untrained_model(SETTINGS, SPEC).state_dict()),
                    {},
                ),
                location.path_of(tmp_path, 5),
            )
            Agent.load(tmp_path, device=name)


def test_an_agent_follows_a_model_that_goes_on_learning():
    made = agent()
    carry = begin(made)
    before, _ = made.decide(carry)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(1.5)
    after, _ = made.decide(carry)
    fresh, _ = Agent(made.model, made.planner, SPEC, device=CPU).decide(carry)
    assert not torch.equal(after.action, before.action)
    assert torch.equal(after.action, fresh.action)


@torch.inference_mode()
def test_a_plan_after_committed_actions_begins_at_the_belief_that_the_prior_predicts():
    made = Agent.build(mode_settings(), SPEC, untrained_model(mode_settings(), SPEC), device=CPU)
    carry = begin(made)
    committed = torch.randn(B, 3, 2, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    ahead, after = made.decide(carry, committed=committed.numpy())
    predicted = made.model.rssm.imagine(carry.state, committed, None)
    last = type(carry.state)(*(part[:, -1] for part in predicted))
    there, _ = made.decide(carry._replace(state=last))
    torch.testing.assert_close(ahead.sequence, there.sequence)
    assert after.state is carry.state
    assert not torch.equal(ahead.sequence, made.decide(carry)[0].sequence)


def mode_settings() -> config.Settings:
    return SETTINGS.model_copy(
        update={"rssm": SETTINGS.rssm.model_copy(update={"filter_by": "mode"})}
    )


def test_fewer_rounds_are_reported():
    made = agent()
    for rounds, done in ((1, 1), (None, 2)):
        plan, _ = made.decide(begin(made), rounds=rounds)
        assert plan.diagnostics["rounds_done"].tolist() == [done] * B
        assert plan.diagnostics["returns_max"].shape == (B, done)


def test_what_is_done_once_is_not_in_the_times(monkeypatch):
    """On a CUDA device the first decision of so many rounds captures graphs."""
    made = agent()
    tried = set()
    decided, _ = made.decide(begin(made))

    def slow_at_first(*given, rounds, **more):
        if rounds not in tried:
            tried.add(rounds)
            time.sleep(0.5)
        return decided, given[0]

    monkeypatch.setattr(made, "act", slow_at_first)
    assert max(made.warmup(B, repeats=1).ms) < 500


def test_times_by_rounds_never_fall_and_decide_how_many_fit(caplog):
    times = agent().warmup(B, delay=2, repeats=1)
    assert len(times.ms) == SETTINGS.planner.iterations
    assert 0 < times.ms[0] <= times.ms[1]
    times = RoundTimes((10.0, 20.0, 40.0))
    assert [times.within(budget) for budget in (10, 39.9, 40, 1000)] == [1, 2, 3, 3]
    assert not caplog.messages
    assert times.within(9) == 1
    assert caplog.messages == [
        "budget_ms 9: one round takes 10.0 ms here and is done all the same; lower "
        "planner.candidates"
    ]
