"""How long an update of actor and critic takes, beside one that is written the usual way.

The reference does what `Behavior.loss` does with DreamerV3's recipe, by REINFORCE or by the
dynamics' gradient, in eager float32, as the public PyTorch ports are written. It takes one
`imagine_step` after another and joins all states again at every step. It runs the actor at every
step and again for its loss, and heads, critic and slow critic wherever they are needed. It keeps a
gradient through all of the imagination, though REINFORCE needs none. Actor and critic have an
optimiser each, PyTorch's default Adam. Both start from the same posterior states of the same model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from planet_rssm import config
from planet_rssm.base.device import autocast, generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import Behavior, untrained_behavior
from planet_rssm.behavior.imagination import frozen
from planet_rssm.behavior.returns import range_after, scale_of
from planet_rssm.bench.train import spec_of
from planet_rssm.bench.turns import REFERENCE, Asked, BenchResult, Machine, Say, in_turns, titled
from planet_rssm.config import Settings
from planet_rssm.training.optim import build_optimizer
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel, untrained_model

PRESETS = ("quickstart", "dreamer-v3")

Update = Callable[[], object]


@dataclass(frozen=True)
class BehaviorTiming:
    """Updates of a preset's actor and critic in one precision, beside the reference."""

    preset: str
    precision: str
    states: int  # that the imagination starts from
    horizon: int
    ms: float
    reference_ms: float
    speedup: float


def bench_behavior(
    asked: Asked,
) -> BenchResult[BehaviorTiming]:
    """Time the imagination, the losses, their gradient and the step, without the model's update.

    Raises:
        PlanetError: no such preset, setting or device, or a preset of another recipe.
    """
    machine = Machine(asked.device, asked.precisions, asked.say)
    cases = []
    for preset in asked.presets:
        settings = config.load(preset, asked.overrides)
        if settings.behavior.name != "v3":
            raise PlanetError(
                f"{preset}: behavior.name = {settings.behavior.name!r}; add -s behavior=v3, the "
                "reference"
            )
        seconds = _time(settings, machine, asked.repeats, titled(asked.say, preset))
        machine.look()
        cases += [_case(preset, settings, name, seconds) for name in machine.precisions]
    return machine.result(cases)


def _case(
    preset: str, settings: Settings, precision: str, seconds: dict[str, float]
) -> BehaviorTiming:
    return BehaviorTiming(
        preset=preset,
        precision=precision,
        states=settings.train.batch_size * settings.train.batch_length,
        horizon=settings.behavior.horizon,
        ms=round(1000 * seconds[precision], 2),
        reference_ms=round(1000 * seconds[REFERENCE], 2),
        speedup=round(seconds[REFERENCE] / seconds[precision], 3),
    )


def _time(settings: Settings, machine: Machine, repeats: int, say: Say) -> dict[str, float]:
    """Return the median seconds of each precision and of the reference, taken in turns."""
    device = machine.device
    model = untrained_model(settings, spec_of(settings)).to(device)
    starts = _starts(model, settings.train.batch_size * settings.train.batch_length, device)
    updates: dict[str, Update] = {
        name: _ours(settings, model, starts, name) for name in machine.precisions
    }
    updates[REFERENCE] = _plain(settings, model, starts)
    for update in updates.values():
        update()  # warms up
    return in_turns(updates, repeats, device, say)


@torch.no_grad()
def _starts(model: WorldModel, rows: int, device: torch.device) -> State:
    rng, rssm = generator(0, device), model.rssm
    deter = torch.randn(rows, rssm.deter_size, generator=rng, device=device).tanh()
    noise = torch.randn(rows, rssm.noise_size, generator=rng, device=device)
    return State(deter, rssm.latent.sample(rssm.prior(deter), noise))


def _made(settings: Settings, model: WorldModel) -> Behavior:
    behavior = untrained_behavior(settings, model)
    assert behavior is not None
    return behavior


def _ours(settings: Settings, model: WorldModel, starts: State, precision: str) -> Update:
    behavior, device = _made(settings, model), starts.deter.device
    learning = [p for p in behavior.parameters() if p.requires_grad]
    optimizer = build_optimizer(learning, settings.optimizer)
    rows = len(starts.deter)
    alive = torch.ones(rows, dtype=torch.bool, device=device)

    def update() -> None:
        noise = behavior.draw(rows, model.rssm.noise_size, generator(0, device), device)
        with autocast(device, precision):
            learned = behavior.imagined(model, starts, alive, noise)
        optimizer.zero_grad()
        learned.loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 100.0)
        optimizer.step()
        behavior.settle(1, learned.bounds)

    return update


def _plain(settings: Settings, model: WorldModel, starts: State) -> Update:
    """Return the reference, see the head of this file."""
    behavior = _made(settings, model)
    starts = State(*(part[: behavior.begin_at(len(part))] for part in starts))
    recipe = settings.behavior
    actor, critic = behavior.actor, behavior.critic
    steps = (
        torch.optim.Adam(actor.parameters(), 4e-5),
        torch.optim.Adam(critic.net.parameters(), 4e-5),
    )
    bounds = torch.zeros(2, device=starts.deter.device)

    def imagined() -> tuple[Tensor, Tensor]:
        """Return features [H + 1, M, F] and actions [H, M, A]."""
        state = starts
        feats = model.rssm.feat(starts)[None]
        actions: Tensor | None = None
        for _ in range(recipe.horizon):
            policy = actor(model.rssm.feat(state).detach())
            action = policy.sample(
                torch.randn(len(state.deter), actor.noise_size, device=bounds.device)
            )
            latent = torch.randn(len(state.deter), model.rssm.noise_size, device=bounds.device)
            state = model.rssm.imagine_step(state, action.clamp(-1, 1), latent)
            feats = torch.cat([feats, model.rssm.feat(state)[None]])
            actions = action[None] if actions is None else torch.cat([actions, action[None]])
        assert actions is not None
        return feats, actions

    def values(feat: Tensor) -> Tensor:
        return critic.mean(critic.raw(feat))

    def update() -> None:
        with frozen(model, critic):
            feats, actions = imagined()
            state = State(*feats.split([model.rssm.deter_size, model.rssm.stoch_size], -1))
            reward = model.predict_reward(state)[1:]
            discount = behavior.discount * model.predict_continue(state)[1:]
            value = values(feats)
            returns = [value[-1]]
            for h in reversed(range(recipe.horizon)):
                mixed = (1 - recipe.trace) * value[h + 1] + recipe.trace * returns[0]
                returns.insert(0, reward[h] + discount[h] * mixed)
            target = torch.stack(returns[:-1])
            weight = torch.cat([torch.ones_like(discount[:1]), discount[:-1]]).cumprod(0).detach()
            policy = actor(feats[:-1].detach())
            bounds.copy_(
                range_after(bounds, target.T, torch.ones_like(target[0], dtype=torch.bool))
            )
            advantage = (target - values(feats[:-1])) / scale_of(bounds)
            reinforced = policy.log_prob(actions.detach()) * advantage.detach()
            gain = behavior.share * advantage + (1 - behavior.share) * reinforced
            objective = gain + recipe.entropy * policy.entropy
            actor_loss = -(weight * objective).mean()
        given = feats[:-1].detach()
        critic_loss = weight * critic.loss(critic.raw(given), target.detach())
        critic_loss = critic_loss + weight * critic.loss(
            critic.raw(given), critic.slow_value(given).detach()
        )
        for optimizer, part, loss in zip(
            steps, (actor, critic.net), (actor_loss, critic_loss.mean()), strict=True
        ):
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
            torch.nn.utils.clip_grad_norm_(part.parameters(), 100.0)
        for optimizer in steps:
            optimizer.step()
        critic.follow(1)

    return update
