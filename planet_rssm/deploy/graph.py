"""One decision as a function of tensors alone: the filter and the search, all noise an input.

What `Agent.act` does for one robot, in float32 and on the plain path. Nothing inside draws, so the
graph can be exported, and on equal noise it decides as the agent does.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from planet_rssm.agent import Agent, AgentCarry
from planet_rssm.agent.noise import filter_noise
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import ActorPlanner
from planet_rssm.planners import SearchPlanner
from planet_rssm.planners.noise import Noise, normals
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics

PIXELS = "pixel_noise/"  # begins the name of what an image is quantised with
_STATE = ("deter", "stoch")
NEXT = "next_"  # begins the names of what goes into the next call


class DecisionGraph(nn.Module):
    """Observation, executed action, carry and noise in; action and next carry out.

    Inputs, in order, each with a batch axis of 1:

        an observation a key    uint8 [1, size, size, 3] or float32 [1, n]
        executed_action         float32 [1, A], what was applied since the last call
        is_first                bool [1]: an episode begins, carry and executed_action are ignored
        deter, stoch            the belief
        mean, elites, known     the carry of a search that begins where the last one ended
        noise                   float32 [K], standard normal numbers, if anything is drawn
        pixel_noise/KEY         float32 [1, size, size, 3] in [0, 1), of images that are quantised

    Outputs: `action` [1, A], `value` [1], and the carry again, each name after `next_`.
    """

    def __init__(self, agent: Agent[Any]) -> None:
        """Take the agent's parts.

        Raises:
            PlanetError: its planner is not one of ours, or the actor proposes to it.
        """
        super().__init__()
        planner = agent.planner
        if not isinstance(planner, SearchPlanner | ActorPlanner):
            raise PlanetError(
                f"{type(planner).__name__}: only cem, icem, mppi, shooting and actor are exported"
            )
        if agent.proposals is not None:
            raise PlanetError(
                "planner.proposals = 'actor': is not exported; give -s planner.proposals=none"
            )
        self.model = agent.model
        self.behavior = planner.behavior if isinstance(planner, ActorPlanner) else None
        self._planner = planner
        self._objective: Any = agent.prepared.objective
        self._dynamics = ModelDynamics(agent.model)
        self._spec = agent.spec
        self._keys = list(agent.spec.observation)
        self._carry = _remembered(planner)
        self._mixing = _mixing(planner) if isinstance(planner, SearchPlanner) else None
        self._shapes = self._noise_shapes()
        self.noise_size = sum(math.prod(shape) for shape in self._shapes if shape)
        quantised = agent.model.draw_pixels((1,), torch.Generator(), torch.device("cpu"))
        self._quantised = list(quantised)

    @property
    def input_names(self) -> list[str]:
        """Return the inputs' names, in order."""
        drawn = ["noise"] * bool(self.noise_size) + [PIXELS + key for key in self._quantised]
        return [*self._keys, "executed_action", "is_first", *_STATE, *self._carry, *drawn]

    @property
    def output_names(self) -> list[str]:
        """Return the outputs' names, in order."""
        return ["action", "value", *(NEXT + name for name in (*_STATE, *self._carry))]

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Decide; see the class. Gradients are off in the caller, or they are followed."""
        given = dict(zip(self.input_names, values, strict=True))
        noise = self._split(given["noise"] if self.noise_size else torch.zeros(0))
        latent, rounds = noise[0], noise[1:]
        first = given["is_first"]
        observation = {key: given[key] for key in self._keys}
        pixels = {key: given[PIXELS + key] for key in self._quantised}
        embed = self.model.encode(observation, pixels)
        before = State(given["deter"], given["stoch"])
        state, _ = self.model.rssm.observe_step(
            before, given["executed_action"], embed, first, latent
        )
        planner = self._planner
        if isinstance(planner, ActorPlanner):
            plan, _ = planner.plan(
                self._dynamics, self._objective, state, (), first, noise=rounds[0]
            )
            return plan.action, plan.value, *state
        carry = planner.initial(1)._replace(**{name: given[name] for name in self._carry})
        plan, memory = planner.plan(
            self._dynamics, self._objective, state, carry, first, noise=self._drawn(rounds)
        )
        kept = [getattr(memory, name) for name in self._carry]
        return plan.action, plan.value, *state, *kept

    def inputs(
        self,
        agent: Agent[Any],
        carry: AgentCarry[Any],
        observation: dict[str, Tensor],
        executed_action: Tensor,
        is_first: Tensor,
    ) -> dict[str, Tensor]:
        """Return the inputs with which the graph decides as `agent.act` would from `carry`."""
        fresh = torch.as_tensor(is_first) | carry.fresh
        # private, as nobody else has to know how an agent names its draws
        latent, pixels = filter_noise(agent.model, 1, [agent._generator(carry.step, 0)])
        rng = agent._generator(carry.step + 1, 1)
        drawn = normals(self._shapes[1:], rng, torch.device("cpu"), torch.float32)
        parts = [latent if self._shapes[0] else None, *drawn]
        flat = [part.flatten() for part in parts if part is not None]
        memory = [getattr(carry.planner, name) for name in self._carry]
        values = [
            *(torch.as_tensor(observation[key]) for key in self._keys),
            torch.as_tensor(executed_action),
            fresh,
            *carry.state,
            *memory,
            *([torch.cat(flat)] if flat else []),
            *(pixels[key] for key in self._quantised),
        ]
        copies = (value.detach().clone() for value in values)
        return dict(zip(self.input_names, copies, strict=True))

    def _noise_shapes(self) -> list[tuple[int, ...] | None]:
        """Return the shapes of the parts of `noise`: the filter's, then three a round."""
        rssm, planner = self.model.rssm, self._planner
        filters = rssm.settings.filter_by == "sample"
        shapes: list[tuple[int, ...] | None] = [(1, rssm.noise_size) if filters else None]
        if isinstance(planner, ActorPlanner):
            return [*shapes, (1, planner.noise_size) if planner.draws else None]
        horizon, particles = planner.settings.horizon, planner.settings.particles
        for count in planner.populations:
            shapes += [
                (1, count, horizon, planner.noise_size),
                self._dynamics.noise_shape(1, count * particles, horizon),
                (1,) if planner.draws_choice else None,
            ]
        return shapes

    def _split(self, noise: Tensor) -> list[Tensor | None]:
        """Return the parts of `noise`, in their shapes, None where nothing is drawn."""
        drawn = [shape for shape in self._shapes if shape]
        parts = iter(noise.split([math.prod(shape) for shape in drawn]) if drawn else ())
        return [next(parts).reshape(shape) if shape else None for shape in self._shapes]

    def _drawn(self, parts: list[Tensor | None]) -> list[Noise]:
        """Return the noise of each round; that of candidates gets its correlation in time."""
        rounds = []
        for actions, model, choice in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            assert actions is not None and self._mixing is not None
            mixed = torch.einsum("bnha,hk->bnka", actions, self._mixing)
            rounds.append(Noise(mixed, model, choice))
        return rounds


def _remembered(planner: SearchPlanner[Any, Any] | ActorPlanner[Any]) -> list[str]:
    """Return the names of what a planner's carry has to bring: nothing, unless it starts warm."""
    if not isinstance(planner, SearchPlanner) or not planner.warm_start:
        return []
    carry = planner.initial(1)
    return [name for name in carry._fields if getattr(carry, name).numel()]


def _mixing(planner: SearchPlanner[Any, Any]) -> Tensor:
    """Return the matrix [H, H] that `planner.correlate` multiplies noise over time with."""
    horizon = planner.settings.horizon
    return planner.correlate(torch.eye(horizon)[:, None, :, None])[:, 0, :, 0]
