"""Small worlds in closed form in a world model's place, and behaviours in them."""

import pytest
import torch
from torch import Tensor, nn

from planet_rssm import config
from planet_rssm.behavior import Behavior
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import State

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def calm(one_thread_and_seed):
    """Every test of this folder is of tiny tensors."""


class Features:
    """The recurrent part: the features are `deter`, the state; `stoch` is the last action."""

    def __init__(self, step) -> None:
        self._step = step

    def feat(self, state: State) -> Tensor:
        return state.deter

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        return State(self._step(state.deter, action), action)


class World(nn.Module):
    """World(step, reward, continues): what behaviour asks of a world model, of three functions."""

    def __init__(self, step, reward, continues=None) -> None:
        super().__init__()
        self.rssm = Features(step)
        self._reward = reward
        self._continues = continues

    def predict_reward(self, state: State) -> Tensor:
        return self._reward(state.deter, state.stoch)

    def predict_continue(self, state: State) -> Tensor:
        if self._continues is None:
            return torch.ones_like(state.deter[..., 0])
        return self._continues(state.deter)


@pytest.fixture
def world():
    return World


@pytest.fixture
def behavior():
    """behavior("v1", feat=2, actions=1, ...): with overrides; its networks have no hidden layer."""

    def make(name, *overrides, feat, actions, discrete=False, groups=(), terminates=False):
        layers = ["behavior.actor_layers=0", "behavior.critic_layers=0"]
        settings = config.load("planet", [f"behavior={name}", *layers, *overrides])
        keys = {"vector": ((2,), "float32")}
        options = {"discrete": discrete, "groups": groups, "terminates": terminates}
        spec = EnvSpec("gym/T-v0", keys, actions, 1, 0.1, 100, "none", "fake 0", **options)
        return Behavior(settings, spec, feat)

    return make


@pytest.fixture
def learn(world):
    """learn(behavior, world, states [M, D], seed): the losses of one imagination from them."""

    def imagined(behavior, world, states, seed=0, alive=None):
        start = State(states, states.new_zeros(len(states), 1))
        noise = behavior.draw(len(states), 1, torch.Generator().manual_seed(seed), CPU)
        noise = noise._replace(action=noise.action.to(states), latent=noise.latent.to(states))
        alive = torch.ones(len(states), dtype=torch.bool) if alive is None else alive
        return behavior.imagined(world, start, alive, noise)

    return imagined
