"""Every recipe over every kind of world model: what is learned, and that the actor then acts."""

import contextlib
import dataclasses

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.base.device import generator
from planet_rssm.behavior import untrained_behavior
from planet_rssm.behavior.imagination import _follow, _follow_packed
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner, to_batch
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel, untrained_model
from planet_rssm.world_model.latents import GaussianLatent

B, T, CPU = 2, 4, torch.device("cpu")
SIZE = """
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=3 rssm.classes=4 rssm.hidden=8
    model.vector_units=8 model.reward_units=8 model.continue_units=8 behavior.units=8
    behavior.horizon=3 planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.batch_size=2 train.batch_length=4
""".split()
KEYS = {"image": ((32, 32, 3), "uint8"), "speed": ((3,), "float32")}
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": KEYS["speed"]}, 2, 1, 0.1, 100, "own", "fake 0", terminates=True
)
MODELS = {
    "gaussian": ("planet", []),
    "ssm": ("planet", ["rssm.kind=ssm"]),
    "rnn": ("planet", ["rssm.kind=rnn"]),
    "learned": ("planet", ["rssm.initial=learned"]),
    "dreamer-v1": ("dreamer-v1", []),
    "dreamer-v2": ("dreamer-v2", []),
    "dreamer-v3-2023": ("dreamer-v3-2023", []),
    "dreamer-v3": ("dreamer-v3", ["train.precision=float32"]),
    "mine": ("planet", [f"rssm.latent={__name__}:Narrow"]),
}
RECIPES = ["v1", "v2", "v3"]


class Narrow(GaussianLatent):
    """A user's latent."""

    def __init__(self, settings) -> None:
        super().__init__(settings.stoch, 0.05)


def settings_of(model: str, *overrides: str) -> Settings:
    preset, own = MODELS[model]
    return config.load(preset, [*own, *SIZE, *overrides])


def learner_of(settings: Settings, spec: EnvSpec) -> Learner:
    model = untrained_model(settings, spec)
    return Learner(model, settings, CPU, untrained_behavior(settings, model))


def starts_of(model: WorldModel, rows: int) -> State:
    drawn = torch.randn(rows, model.rssm.deter_size, generator=generator(0, CPU)).tanh()
    return State(drawn, model.rssm.latent.sample(model.rssm.prior(drawn), None).detach())


@pytest.mark.parametrize("model", MODELS)
def test_gathered_gradients_are_autograds(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 to 1e-10: of the actor by the dynamics' gradient, and of the critic."""
    settings = settings_of(
        model, "behavior=v3", "behavior.units=8", "behavior.objective=dynamics",
        "behavior.critic_outscale=1", "behavior.actor_outscale=1",
    )  # fmt: skip
    world = untrained_model(settings, SPEC).double()
    behavior = untrained_behavior(settings, world)
    assert behavior is not None
    behavior.double()
    rows = 5
    starts = State(*(part.double() for part in starts_of(world.float(), rows)))
    world.double()
    noise = behavior.draw(rows, world.rssm.noise_size, generator(0, CPU), CPU)
    noise = noise._replace(action=noise.action.double(), latent=noise.latent.double())

    def gradients() -> list[torch.Tensor]:
        behavior.zero_grad()
        learned = behavior.imagined(world, starts, torch.ones(rows, dtype=torch.bool), noise)
        learned.loss.backward()
        assert all(p.grad is None and p.requires_grad for p in world.parameters())
        return [p.grad.clone() for p in behavior.parameters() if p.grad is not None]

    ours = gradients()
    assert len(ours) == sum(p.requires_grad for p in behavior.parameters())
    monkeypatch.setattr(
        "planet_rssm.behavior.imagination.gathered", lambda *parts: contextlib.nullcontext()
    )
    for one, other in zip(ours, gradients(), strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", MODELS)
def test_an_update_learns_and_the_actor_acts(model: str, recipe: str) -> None:
    settings = settings_of(
        model, f"behavior={recipe}", "behavior.units=8", "behavior.horizon=3", "planner.name=actor"
    )
    learner = learner_of(settings, SPEC)
    assert learner.behavior is not None
    before = {name: p.clone() for name, p in learner.behavior.named_parameters() if p.requires_grad}
    chunks = random_chunks(SPEC, B, T)
    for index in range(2):  # a critic that begins at 0 moves its last layer alone at first
        metrics = learner.update(chunks, index)
    assert "skipped" not in metrics
    assert metrics["grad_norm/actor"] > 0 and metrics["grad_norm/critic"] > 0
    assert all(torch.isfinite(p).all() for p in learner.behavior.parameters())
    after = dict(learner.behavior.named_parameters())
    assert [
        name
        for name, p in before.items()
        if name.startswith("actor") and torch.equal(p, after[name])
    ] == []
    agent = Agent.build(settings, SPEC, learner.model, learner.behavior, device=CPU)
    observation = {key: value[:, 0] for key, value in chunks.observation.items()}
    first = torch.ones(B, dtype=torch.bool)
    plan, _ = agent.act(agent.initial(B), observation, torch.zeros(B, 2), first)
    assert (
        plan.action.shape == (B, 2) and (plan.action.abs() <= 1).all() and plan.value.shape == (B,)
    )


@pytest.mark.parametrize("keys", [("image",), ("image", "speed")])
@pytest.mark.parametrize("groups", [(), (2,), (1, 1)], ids=str)
def test_from_pixels_or_both_and_of_numbers_or_choices(
    keys: tuple[str, ...], groups: tuple[int, ...]
) -> None:
    observed = {key: KEYS[key] for key in keys}
    spec = dataclasses.replace(SPEC, observation=observed, discrete=bool(groups), groups=groups)
    learner = learner_of(
        settings_of("gaussian", "behavior=v2", "behavior.units=8", "behavior.horizon=3"), spec
    )
    assert "skipped" not in learner.update(random_chunks(spec, B, T), 0)


@pytest.mark.parametrize("model", MODELS)
def test_the_quick_imagination_is_the_plain_one(model: str) -> None:
    settings = settings_of(model, "behavior=v3", "behavior.units=8", "behavior.horizon=3")
    learner = learner_of(settings, SPEC)
    behavior = learner.behavior
    world = learner.model
    noise = behavior.draw(5, world.rssm.noise_size, generator(1, CPU), CPU)
    with torch.no_grad():
        plain, quick = (
            way(world, behavior.actor, starts_of(world, 5), noise)
            for way in (_follow, _follow_packed)
        )
    for one, other in zip(plain, quick, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["v1", "v2", "v3"])
def test_only_the_replay_value_loss_touches_the_model(recipe: str) -> None:
    """Without it the model learns to the last bit what it learns alone."""
    options = [
        "optimizer.name=adam",
        "optimizer.lr=1e-3",
        "optimizer.clip=1e9",
        f"behavior={recipe}",
    ]
    small = ["behavior.units=8", "behavior.horizon=3", "behavior.critic_outscale=1"]
    chunks = random_chunks(SPEC, B, T)
    weights = {}
    for name, more in {
        "alone": ["behavior=none"],
        "none": ["behavior.replay_value=0"],
        "some": ["behavior.replay_value=1"],
    }.items():
        learner = learner_of(settings_of("gaussian", *options, *small, *more), SPEC)
        learner.update(chunks, 0)
        weights[name] = torch.cat([p.flatten() for p in learner.model.parameters()])
    assert torch.equal(weights["alone"], weights["none"])
    assert not torch.equal(weights["alone"], weights["some"])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_all_weights_learn_in_half_precision_too(precision: str) -> None:
    """Autocast keeps casts of weights: one made without a gradient must not serve with one."""
    options = [
        "behavior=v3",
        *SIZE,
        "behavior.critic=gaussian",
        "behavior.critic_outscale=1",
        "behavior.actor_outscale=1",
    ]
    learner = learner_of(settings_of("gaussian", *options, f"train.precision={precision}"), SPEC)
    learner.update(random_chunks(SPEC, B, T), 0)
    learned = {
        name
        for name, p in learner.behavior.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {name for name, p in learner.behavior.named_parameters() if p.requires_grad} == learned


def test_real_returns_by_hand() -> None:
    """The rewards of the states after it, then what is imagined from there: lambda 0.5."""
    options = [
        "behavior=v3",
        "behavior.trace=0.5",
        "behavior.discount=0.9",
        "behavior.units=8",
        "behavior.horizon=3",
    ]
    learner = learner_of(settings_of("gaussian", *options), SPEC)
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    context = learner.model.loss(batch, learner.model.draw(B, T, generator(0, CPU), CPU)).context
    rewards = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    ahead = torch.tensor([[7.0, 10.0, 20.0, 30.0]])
    batch = batch._replace(reward=rewards.expand(B, T))
    _, metrics = learner.behavior.replayed(learner.model, batch, context, ahead.expand(B, T))
    # 3 + 0.9 * 30; 2 + 0.9 (0.5 * 20 + 0.5 * 30); 1 + 0.9 (0.5 * 10 + 0.5 * 24.5); a critic that
    # begins at 0
    for name in ("return_replayed", "value_error"):
        assert float(metrics[f"behavior/{name}"]) == pytest.approx((30 + 24.5 + 16.525) / 3)


@pytest.mark.parametrize("weights", ["reached", "head", "late"])
def test_ends_and_padding_are_no_beginnings(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """But where the continue head says what a start weighs, which has its own belief about ends."""
    options = [
        "behavior=v3",
        "behavior.units=8",
        "behavior.horizon=3",
        f"behavior.weights={weights}",
    ]
    learner = learner_of(settings_of("gaussian", *options), SPEC)
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    batch.is_terminal[0, 2] = True
    batch.mask[:] = torch.tensor([[True, True, True, False], [True] * 4])
    begun = []
    own = learner.behavior.imagined
    monkeypatch.setattr(
        learner.behavior, "imagined", lambda *given: begun.append(given[2]) or own(*given)
    )
    context = learner.model.loss(batch, learner.model.draw(B, T, generator(0, CPU), CPU)).context
    learner.behavior.loss(
        learner.model, batch, context, learner.behavior.draw(B * T, 3, generator(1, CPU), CPU)
    )
    assert begun[0].tolist() == [True, True, weights != "reached", False, True, True, True, True]


@pytest.mark.parametrize("model", ["dreamer-v1", "dreamer-v2", "dreamer-v3"])
def test_what_stands_in_padding_changes_nothing_that_actor_and_critic_learn(model: str) -> None:
    learner = learner_of(settings_of(model), SPEC)
    behavior, own = learner.behavior, learner.model
    assert behavior is not None
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    batch.mask[:] = torch.tensor([[True, True, False, False], [True] * 4])
    context = own.loss(batch, own.draw(B, T, generator(0, CPU), CPU)).context
    noise = behavior.draw(B * T, own.rssm.noise_size, generator(1, CPU), CPU)
    learned = []
    for scale in (1.0, -3.0):
        factor = torch.where(batch.mask, 1.0, scale)[..., None]
        states = State(*(part.detach() * factor for part in context.states))
        behavior.zero_grad()
        loss, metrics, bounds = behavior.loss(own, batch, context._replace(states=states), noise)
        loss.backward()
        gradients = [part.grad for part in behavior.parameters() if part.grad is not None]
        learned.append([loss.detach(), bounds, *metrics.values(), *gradients])
    torch.testing.assert_close(*learned)


def test_imagination_begins_at_a_share_of_the_states() -> None:
    options = ("behavior=v3", "behavior.units=8", "behavior.horizon=3")
    learner = learner_of(settings_of("gaussian", *options, "behavior.starts=0.4"), SPEC)
    behavior, model = learner.behavior, learner.model
    assert behavior is not None
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    context = model.loss(batch, model.draw(B, T, generator(0, CPU), CPU)).context
    states = State(*(part.flatten(0, 1) for part in context.states))
    alive = batch.mask.flatten()
    noise = behavior.draw(B * T, model.rssm.noise_size, generator(1, CPU), CPU)
    assert noise.start is not None and len(set(noise.start.tolist())) == 3 == len(noise.action)
    learned = behavior.imagined(model, states, alive, noise)
    picked = State(*(part[noise.start] for part in states))
    alone = behavior.imagined(model, picked, alive[noise.start], noise._replace(start=None))
    torch.testing.assert_close(learned.returns, alone.returns)
    replayed = []
    own = behavior.replayed
    behavior.replayed = lambda *given: replayed.append(given[3]) or own(*given)
    behavior.loss(model, batch, context, noise)
    ahead = replayed[0].flatten()
    torch.testing.assert_close(ahead[noise.start], learned.returns[:, 0])
    rest = [row for row in range(B * T) if row not in noise.start.tolist()]
    value = behavior.critic(model.rssm.feat(states)).detach()
    torch.testing.assert_close(ahead[rest], value[rest])


def test_an_end_in_the_batch_cuts_the_real_return() -> None:
    learner = learner_of(
        settings_of("gaussian", "behavior=v3", "behavior.units=8", "behavior.horizon=3"), SPEC
    )
    assert learner.behavior is not None
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    ends = batch.is_terminal.clone()
    ends[:, -1] = True
    context = learner.model.loss(batch, learner.model.draw(B, T, generator(0, CPU), CPU)).context
    returns = []
    for is_terminal, beyond in ((ends, 1e6), (ends, 0.0), (batch.is_terminal, 1e6)):
        ahead = torch.zeros(B, T)
        ahead[:, -1] = beyond
        _, metrics = learner.behavior.replayed(
            learner.model, batch._replace(is_terminal=is_terminal), context, ahead
        )
        returns.append(float(metrics["behavior/return_replayed"]))
    assert returns[0] == returns[1] and returns[2] > 1e5


def test_a_half_empty_chunk_ends_with_what_is_imagined_there() -> None:
    """Returns of a chunk whose last two steps are padding are those of the chunk without them."""
    learner = learner_of(
        settings_of("gaussian", "behavior=v3", "behavior.units=8", "behavior.horizon=3"), SPEC
    )
    assert learner.behavior is not None
    batch = to_batch(random_chunks(SPEC, B, T), CPU)
    context = learner.model.loss(batch, learner.model.draw(B, T, generator(0, CPU), CPU)).context
    mask = batch.mask.clone()
    ahead = torch.randn(B, T)
    mask[:, 2:] = False
    short = type(batch)({}, *(part[:, :2] for part in batch[1:]))
    less = context._replace(states=State(*(part[:, :2] for part in context.states)))
    padded = learner.behavior.replayed(learner.model, batch._replace(mask=mask), context, ahead)
    cut = learner.behavior.replayed(learner.model, short, less, ahead[:, :2])
    torch.testing.assert_close(padded[0], cut[0])
    torch.testing.assert_close(padded[1], cut[1])
