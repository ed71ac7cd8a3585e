"""The collector that plays a round's episodes in the process that asks for them."""

from typing import Any

import torch

from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.device import within_memory
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages
from planet_rssm.collect import Policy, RandomPolicy, collect
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.pool import EnvPool
from planet_rssm.precision import collecting_precision
from planet_rssm.training.collector import Networks, Order, Played, Watch, joined


class LocalCollector:
    """Plays in this process, when the episodes are asked for."""

    def __init__(
        self, settings: Settings, device: torch.device, pool: EnvPool, stages: Stages
    ) -> None:
        """Play in `pool`, plan on `device`, and count the time of what is learned from."""
        self.spec = pool.spec
        self.stages = stages
        self._settings = settings
        self._device = device
        self._pool = pool
        self._begun: tuple[Order, Networks] | None = None

    def begin(self, order: Order, networks: Networks) -> None:
        """Keep the order."""
        self._begun = order, networks

    def finish(self, watch: Watch) -> Played:
        """Play what `begin` was given; see Collector."""
        assert self._begun is not None
        order, networks = self._begun
        parts = order.parts(self._settings.train.collectors)
        return joined([self._play(part, networks, watch) for part in parts])

    def _play(self, order: Order, networks: Networks, watch: Watch) -> Played:
        """Play a part of an order."""
        stages = Stages() if order.stream is Stream.TEST else self.stages
        before = self._pool.lost
        done: dict[int, Episode] = {}
        fix = (
            "free some and go on with --resume, or train another run with lower planner.candidates"
        )
        with stages("environment"), within_memory(self._device, "a decision", fix):
            policy = self._policy(order, networks)
            for index, episode in collect(
                self._pool, policy, order.seeds, on_step=lambda _: watch.tick()
            ):
                done[index] = episode
                watch.ended(order.first + index, episode)
        episodes = [done[index] for index in range(len(order.seeds))]
        return Played(episodes, self._pool.lost - before)

    def _policy(self, order: Order, networks: Networks) -> Policy:
        settings, spec = self._settings, self.spec
        if order.stream is Stream.RANDOM_ACTIONS:
            seed = stream_seed(settings.seed, Stream.RANDOM_ACTIONS)
            numbers = range(order.first, order.first + len(order.seeds))
            return RandomPolicy(spec.action_size, seed, spec.groups, numbers)
        collects = order.stream is Stream.COLLECT
        precision = collecting_precision(settings, self._device)
        if settings.planner.name == "actor" and collects:
            # it explores by drawing its actions
            planner = settings.planner.model_copy(update={"act_by": "draw"})
            settings = settings.model_copy(update={"planner": planner})
        agent: Agent[Any] = Agent.build(
            settings,
            networks.model.spec,
            networks.model,
            networks.behavior,
            device=self._device,
            precision=precision,
            exploration_noise=settings.train.exploration_noise if collects else 0.0,
            seed=stream_seed(settings.seed, order.stream, *order.draws),
        )
        return AgentPolicy(agent, settings.train.envs, stages=self.stages if collects else None)
