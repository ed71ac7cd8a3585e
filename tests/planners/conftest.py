"""Closed-form systems that planners are tested on, and settings of planners by elites."""

import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import FunctionDynamics
from planet_rssm.types import Dynamics, Rollout

ACTION_SIZE = 2


@pytest.fixture(autouse=True)
def calm(one_thread_and_seed):
    """Every test of this folder is of tiny tensors."""


@pytest.fixture(params=["cem", "icem", "mppi"])
def settings(request):
    return PlannerSettings(
        name=request.param, weigh="elites", horizon=6, candidates=40, iterations=3, elites=8
    )


class NoisyWalk(Dynamics[dict[str, torch.Tensor]]):
    """A point moved by the action and by a normal step; it is paid for being near the origin."""

    differentiable = True

    def noise_shape(self, batch, candidates, horizon):
        return (batch, candidates, horizon, ACTION_SIZE)

    def rollout(self, state, actions, noise):
        path = state["x"][:, None, None] + (0.5 * actions + 0.3 * noise).cumsum(2)
        reward = -path.square().sum(-1)
        return Rollout(reward, torch.ones_like(reward), {"x": path[:, :, -1]})


class StillWalk(FunctionDynamics):
    """The same point without its own steps, from functions."""

    def __init__(self):
        super().__init__(
            lambda state, action: {"x": state["x"] + 0.5 * action},
            lambda state, action, following: -following["x"].square().sum(-1),
        )


@pytest.fixture(params=[NoisyWalk, StillWalk])
def walk(request):
    return request.param()


@pytest.fixture
def still_walk():
    return StillWalk()


class LQR:
    """Two masses with springs and dampers, a force on each: 4 states, quadratic cost, 20 steps."""

    horizon = 20

    def __init__(self):
        step = 0.1
        drift = torch.tensor(
            [[0, 0, 1, 0], [0, 0, 0, 1], [-2, 1, -0.2, 0], [1, -2, 0, -0.2]], dtype=torch.float64
        )
        force = torch.tensor([[0, 0], [0, 0], [2, 0], [0, 1]], dtype=torch.float64)
        self.a = torch.eye(4, dtype=torch.float64) + step * drift
        self.b = step * force
        self.q = torch.diag(torch.tensor([1.0, 2.0, 0.1, 0.1], dtype=torch.float64))
        self.r = 0.3 * torch.eye(2, dtype=torch.float64)
        self.start = (
            torch.tensor(
                [[0.5, -0.3, 0.2, 0.0], [0.0, 0.6, -0.5, 0.3], [-0.4, -0.4, 0.0, 0.6]]
            ).double()
            * 0.8
        )
        self.dynamics = FunctionDynamics(
            lambda x, u: x @ self.a.T + u @ self.b.T, lambda x, u, y: -self.cost(x, u)
        )

    def cost(self, x, u):
        return ((x @ self.q) * x).sum(-1) + ((u @ self.r) * u).sum(-1)

    def solve(self):
        """Return the optimal cost [B] and actions [B, H, 2] by the Riccati recursion.

        The last state costs nothing.
        """
        value = torch.zeros(4, 4, dtype=torch.float64)
        gains = []
        for _ in range(self.horizon):
            gain = torch.linalg.solve(self.r + self.b.T @ value @ self.b, self.b.T @ value @ self.a)
            value = self.q + self.a.T @ value @ (self.a - self.b @ gain)
            gains.insert(0, gain)
        x = self.start
        actions = []
        for gain in gains:
            actions.append(-x @ gain.T)
            x = x @ self.a.T + actions[-1] @ self.b.T
        return ((self.start @ value) * self.start).sum(-1), torch.stack(actions, 1)

    def cost_of(self, sequence):
        """Return the true cost [B] of acting by `sequence` [B, H, 2]."""
        x = self.start
        total = torch.zeros(len(self.start), dtype=torch.float64)
        for u in sequence.unbind(1):
            total = total + self.cost(x, u)
            x = x @ self.a.T + u @ self.b.T
        return total


@pytest.fixture
def lqr():
    return LQR()
