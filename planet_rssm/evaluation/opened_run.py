"""What `planet eval` evaluates: a checkpoint of a run, or a planner in a simulator, opened and ready to be played."""

import contextlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from planet_rssm.agent import Agent, AgentPolicy, parts_of, require_search
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import EnvSettings, Settings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.own_policy import is_own_policy, own_policy, settings_of
from planet_rssm.evaluation.plan_run import same_pixels
from planet_rssm.evaluation.plan_simulator import PREFIX, simulator_settings
from planet_rssm.evaluation.protocol import EpisodeResult, TimedPolicy, play
from planet_rssm.precision import EXACT, planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.runs.run import versions

BATCH = 10  # episodes played side by side

OnEpisode = Callable[[EpisodeResult], None]


class Pools:
    """Environments that stay open as long as the next ones wanted are the same: starting them takes seconds."""

    def __init__(self) -> None:
        self._wanted: tuple[EnvSettings, int] | None = None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        self._held.close()

    def of(self, settings: EnvSettings, count: int) -> EnvPool:
        """Return `count` environments of resolved settings."""
        if self._wanted != (settings, count):
            self._wanted = None
            self._held.close()
            self._pool = self._held.enter_context(EnvPool(settings, count))
            self._wanted = settings, count
        return self._pool

    def drop(self) -> None:
        """Close what is open: something went wrong in it."""
        self._wanted = None
        self._held.close()


@dataclass(frozen=True)
class Subject:
    """Something to be evaluated.

    `name` is what the user called it, `folder` where its rows are kept; `made_of` says all that
    decides its returns, `trained` what it has learned from; `batch` episodes are played side by
    side at most, by `play` (see `_Model.play`).
    """

    name: str
    folder: Path | None  # None: nothing is kept, since what decides the returns cannot be named
    settings: Settings
    spec: EnvSpec
    checkpoint: int | str | None
    made_of: dict[str, Any]
    trained: dict[str, Any]
    batch: int
    play: Callable[[Sequence[int], int, Pools, Stages, OnEpisode], list[EpisodeResult]]

    @property
    def observation(self) -> dict[str, Any]:
        """What is observed, as `planet plan --json` says it."""
        observe = "state" if self.checkpoint is None else self.settings.env.observe
        told = {"observe": observe, "renderer": self.spec.renderer, "size": self.settings.env.size}
        return told | {"simulator": self.spec.simulator}


def open_subject(run: str, checkpoint: str, overrides: Sequence[str], device: str) -> Subject:
    """Open RUN: a run folder, `pretrained:NAME`, `simulator:TASK` or a policy, `module:Policy@TASK`.

    Raises:
        PlanetError: there is nothing of that name, it is damaged, or an override is refused.
    """
    if run.startswith(PREFIX):
        return _simulated(run, checkpoint, overrides)
    if is_own_policy(run) and not Path(run).exists():
        return _own(run, checkpoint, overrides)
    held, where, path = checkpoints.open_run(run, checkpoint, overrides, device)
    settings = held.settings
    require_search(settings.planner, where)  # before any environment is started
    learned = f"{zlib.crc32(read_regular(path, checkpoints.MOST)):08x}"
    return Subject(
        name=run,
        folder=checkpoints.outputs(Path(run)),
        settings=settings,
        spec=held.spec,
        checkpoint=int(checkpoint) if checkpoint.isdecimal() else checkpoint,
        made_of=_made_of(settings, held.spec, learned, str(where)),
        trained={name: held.progress.get(name) for name in ("env_steps", "updates", "seconds")},
        batch=BATCH,
        play=_Model(settings, held, where).play,
    )


def _made_of(settings: Settings, spec: EnvSpec, learned: str | None, device: str) -> dict[str, Any]:
    """Return what decides the returns of episodes, as JSON."""
    return {
        "env": spec.to_json(),
        "checkpoint_crc32": learned,
        "planner": settings.planner.model_dump(mode="json", exclude={"precision"}),
        "filter_by": settings.rssm.filter_by,
        "plan_by": settings.rssm.plan_by,
        "precision": EXACT
        if learned is None
        else planning_precision(settings, torch.device(device)),
        "device": device,
        "versions": versions(),
    }


class _Model:
    """A learned model and the agent around it, made when first played."""

    def __init__(self, settings: Settings, held: Checkpoint, device: torch.device) -> None:
        self._settings, self._held, self._device = settings, held, device
        self._agent: Agent | None = None

    def play(
        self, seeds: Sequence[int], width: int, pools: Pools, stages: Stages, on_episode: OnEpisode
    ) -> list[EpisodeResult]:
        """Play an episode a seed, all side by side in `width` rows; those left over idle."""
        with stages("start"):
            pool = pools.of(self._settings.env, width)
            agent = self._agent = self._agent or self._build(
                same_pixels(self._held.spec, pool.spec)
            )
        policy = AgentPolicy.of_episodes(agent, seeds, width, stages=stages)
        with within_memory(
            self._device, "a decision", "free some, or lower planner.candidates with -s"
        ):
            with stages("environment"):
                return play(pool, policy, seeds, None, on_episode)

    def _build(self, seen: EnvSpec) -> Agent:
        return Agent.build(
            self._settings, seen, *parts_of(self._held, self._device), device=self._device
        )


def _own(run: str, checkpoint: str, overrides: Sequence[str]) -> Subject:
    if checkpoint != "last":
        raise PlanetError(f"--checkpoint {checkpoint}: {run} has none; leave it out")
    name, settings = settings_of(run, overrides)
    with EnvPool(settings.env, 1) as pool:
        spec = pool.spec
    own_policy("RUN", name, spec, 1)  # so that a mistake is said before anything is played

    def one(
        seeds: Sequence[int], width: int, pools: Pools, stages: Stages, on_episode: OnEpisode
    ) -> list[EpisodeResult]:
        with stages("start"):
            pool = pools.of(settings.env, width)
        policy = TimedPolicy(own_policy("RUN", name, pool.spec, width), stages)
        with stages("environment"):
            return play(pool, policy, seeds, None, on_episode)

    return Subject(
        name=run,
        folder=None,
        settings=settings,
        spec=spec,
        checkpoint="policy",
        made_of=_made_of(settings, spec, None, "cpu") | {"policy": name},
        trained={"env_steps": 0, "updates": 0, "seconds": 0.0},
        batch=BATCH,
        play=one,
    )


def _simulated(run: str, checkpoint: str, overrides: Sequence[str]) -> Subject:
    if checkpoint != "last":
        raise PlanetError(
            f"--checkpoint {checkpoint}: {run} has none, nothing is learned; leave it out"
        )
    settings = simulator_settings(run, overrides)
    os.environ["MUJOCO_GL"] = (
        "disable"  # this process has torch in it: no software GL, whatever the user's is
    )
    logging.getLogger("absl").setLevel(
        logging.ERROR
    )  # mujoco says that dm_control's models are of an older style
    from planet_rssm.planners import planner_from_settings
    from planet_rssm.simulator.dynamics import SimulatorPolicy
    from planet_rssm.simulator.local import LocalPool
    from planet_rssm.simulator.physics import Simulator

    pool = LocalPool(settings.env)
    simulator = Simulator(pool.env, torch.get_num_threads())
    planner = planner_from_settings(settings.planner, pool.spec.action_size)

    def one(
        seeds: Sequence[int], width: int, pools: Pools, stages: Stages, on_episode: OnEpisode
    ) -> list[EpisodeResult]:
        acting = SimulatorPolicy(
            [simulator], planner, seed=seeds[0], discount=settings.planner.discount
        )
        policy = TimedPolicy(acting, stages)
        with stages("environment"):
            return play(pool, policy, seeds, None, on_episode)

    return Subject(
        name=run,
        folder=Path("runs") / run.replace(":", "-").replace("/", "-"),
        settings=settings,
        spec=pool.spec,
        checkpoint=None,
        made_of=_made_of(settings, pool.spec, None, "cpu"),
        trained={"env_steps": 0, "updates": 0, "seconds": 0.0},
        batch=1,
        play=one,
    )
