"""The actor acting in the world model, from many states at once."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from planet_rssm.behavior.networks import Actor
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel
from planet_rssm.world_model.networks import precise
from planet_rssm.world_model.packed_layers import pack
from planet_rssm.world_model.packed_model import PackedModel
from planet_rssm.world_model.plain import is_plain
from planet_rssm.world_model.recurrence import gathered


class ImaginationNoise(NamedTuple):
    """All the randomness of one imagination: standard normal draws for M states and H steps."""

    action: Tensor  # [M, H, noise_size] of the actor
    latent: Tensor  # [M, H, noise_size] of the latent
    start: Tensor | None = None  # [M], places of the states among a batch's; None: they are all

    def of_states(self, states: range) -> "ImaginationNoise":
        """Return what of it belongs to these of the batch's states."""
        if self.start is None:
            part = slice(states.start, states.stop)
            return ImaginationNoise(self.action[part], self.latent[part])
        own = (self.start >= states.start) & (self.start < states.stop)
        return ImaginationNoise(self.action[own], self.latent[own], self.start[own] - states.start)


class Imagined(NamedTuple):
    """What was imagined from M states in H steps: state h + 1 is what action h led to."""

    feat: Tensor  # [M, H + 1, F], the start first
    # [M, H, A], as drawn: numbers may lie beyond [-1, 1], where the dynamics gets the bound
    action: Tensor
    raw: Tensor  # [M, H, raw_size], the actor's output that each action was drawn from
    reward: Tensor  # [M, H], that came with state h + 1
    continues: Tensor  # [M, H], the probability that the episode continues after it


def imagine(
    model: WorldModel, actor: Actor, start: State, noise: ImaginationNoise, *, gradient: bool
) -> Imagined:
    """Act for H steps from `start` [M, ...], from which nothing is learned.

    With `gradient` what follows an action depends on it (the dynamics' gradient); the actor itself
    always takes states as given. Without it only `raw` has a gradient, and is computed once for all
    steps, after the fact: the imagination itself then runs on packed weights.
    """
    start = State(*(part.detach().to(noise.latent.dtype) for part in start))
    if gradient:
        parts = (model.rssm.core, model.rssm.prior_net) if isinstance(model, WorldModel) else ()
        with frozen(model), gathered(*parts, actor):
            return _follow(model, actor, start, noise)
    packed = isinstance(model, WorldModel) and not is_plain()
    follow = _follow_packed if packed else _follow
    with torch.no_grad():
        imagined = follow(model, actor, start, noise)
    return imagined._replace(raw=actor.raw(imagined.feat[:, :-1]))


def _follow_packed(
    model: WorldModel, actor: Actor, start: State, noise: ImaginationNoise
) -> Imagined:
    """Do what `_follow` does, without gradients and faster, in the precision of the autocast."""
    kind = start.deter.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else start.deter.dtype
    raws: list[Tensor] = []
    actions: list[Tensor] = []
    with torch.autocast(kind, enabled=False):
        packed = PackedModel(model, dtype)
        net = pack(actor.net, dtype)

        def act(feat: Tensor, step: int) -> Tensor:
            raws.append(precise(net(feat)))
            actions.append(actor.distribution(raws[-1]).sample(noise.action[:, step]))
            return actions[-1].clamp(-1, 1)

        reached, reward, continues = packed.follow(start, act, noise.latent)
        parts = zip(start, reached, strict=True)
        states = State(*(torch.cat([first[:, None], rest], 1) for first, rest in parts))
        action = torch.stack(actions, 1)
        raw = torch.stack(raws, 1)
    return Imagined(model.rssm.feat(states), action, raw, reward.to(raw), continues.to(raw))


def _follow(model: WorldModel, actor: Actor, state: State, noise: ImaginationNoise) -> Imagined:
    states = [state]
    raws = []
    actions = []
    for step in range(noise.action.shape[1]):
        raws.append(actor.raw(model.rssm.feat(states[-1]).detach()))
        actions.append(actor.distribution(raws[-1]).sample(noise.action[:, step]))
        action = bounded(actions[-1])
        states.append(model.rssm.imagine_step(states[-1], action, noise.latent[:, step]))
    reached = State(*(torch.stack(parts, 1) for parts in zip(*states[1:], strict=True)))
    feat = torch.stack([model.rssm.feat(state) for state in states], 1)
    return Imagined(
        feat=feat,
        action=torch.stack(actions, 1),
        raw=torch.stack(raws, 1),
        reward=model.predict_reward(reached),
        continues=model.predict_continue(reached),
    )


def bounded(action: Tensor) -> Tensor:
    """Return actions [*B, A] moved to the nearest bound of [-1, 1]; they keep a gradient beyond.

    a / stop_gradient(max(1, |a|)), as DreamerV3 has it: a clamp would let no gradient through where
    an action was drawn beyond a bound, a third of all at the first spread.
    """
    return action / action.detach().abs().clamp(min=1)


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let no gradient reach the modules' weights from what is computed inside.

    What was computed before keeps its gradient.
    """
    weights = [weight for module in modules for weight in module.parameters()]
    weights = [weight for weight in weights if weight.requires_grad]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
