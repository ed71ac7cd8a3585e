"""What `planet eval` evaluates: a run, a policy or a planner in a simulator, ready to be played."""

import contextlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from planet_rssm.agent import Agent, AgentPolicy, parts_of
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.base.json_types import Json
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import EnvSettings, Settings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec, require_same_environment
from planet_rssm.evaluation.eval_results import Training
from planet_rssm.evaluation.own_policy import is_own_policy, own_policy, settings_of
from planet_rssm.evaluation.protocol import EpisodeResult, TimedPolicy, play
from planet_rssm.evaluation.results import ObservationInfo, checkpoint_name
from planet_rssm.evaluation.simulator_settings import PREFIX, simulator_settings
from planet_rssm.planners.limits import require_search
from planet_rssm.precision import EXACT, planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint, OpenedRun
from planet_rssm.runs.surroundings import versions
from planet_rssm.simulator.headless import forbid_gl

BATCH = 10  # episodes played side by side
UNTRAINED = Training(env_steps=0, updates=0, seconds=0.0)

OnEpisode = Callable[[EpisodeResult], None]


class Pools:
    """Environments that stay open while the next run needs the same: starting takes seconds."""

    def __init__(self) -> None:
        self._wanted: tuple[EnvSettings, int] | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        self._open.close()

    def of(self, settings: EnvSettings, count: int) -> EnvPool:
        """Return `count` environments of resolved settings."""
        if self._wanted != (settings, count):
            self._wanted = None
            self._open.close()
            self._pool = self._open.enter_context(EnvPool(settings, count))
            self._wanted = settings, count
        return self._pool

    def drop(self) -> None:
        """Close what is open: something went wrong in it."""
        self._wanted = None
        self._open.close()


# plays an episode a seed, all side by side in rows of the given number; those left over idle
Play = Callable[[Sequence[int], int, Pools, Stages, OnEpisode], list[EpisodeResult]]


@dataclass(frozen=True)
class Subject:
    """Something that is ready to be evaluated."""

    name: str  # as the user called it
    folder: Path | None  # for episodes; None: nothing is kept, the policy's code may change
    settings: Settings
    spec: EnvSpec
    checkpoint: int | str | None  # None: a simulator has none
    conditions: Json  # all that decides the returns, as JSON
    training: Training
    batch: int  # episodes that are played side by side, at most
    play: Play
    player: "RunPlayer | None" = None  # where `play` is one's

    @property
    def observation(self) -> ObservationInfo:
        """What is observed."""
        make = ObservationInfo.of_state if self.checkpoint is None else ObservationInfo.of
        return make(self.settings.env, self.spec)


def open_subject(run: str, checkpoint: str, overrides: Sequence[str], device: str) -> Subject:
    """Open RUN: a run folder, `pretrained:NAME`, `simulator:TASK` or `module:Policy@TASK`.

    Raises:
        PlanetError: there is nothing of that name, it is damaged, or an override is refused.
    """
    if run.startswith(PREFIX):
        return _open_simulator(run, checkpoint, overrides)
    if is_own_policy(run) and not Path(run).exists():
        return _open_policy(run, checkpoint, overrides)
    return run_subject(run, checkpoint, checkpoints.open_run(run, checkpoint, overrides, device))


def run_subject(run: str, checkpoint: str, opened: OpenedRun) -> Subject:
    """Return a trained run that is `opened`, ready to act as the settings in it say.

    Raises:
        PlanetError: its search cannot fit into the memory.
    """
    loaded, where, path = opened
    settings = loaded.settings
    require_search(settings.planner, where)  # before any environment is started
    player = RunPlayer(loaded, where)
    return Subject(
        name=run,
        folder=location.outputs(Path(run)),
        settings=settings,
        spec=loaded.spec,
        checkpoint=checkpoint_name(checkpoint),
        conditions=_conditions(settings, loaded.spec, checksum(path), where),
        training=Training.of(loaded.progress),
        batch=BATCH,
        play=player.play,
        player=player,
    )


def checksum(path: Path) -> str:
    """Return the CRC-32 of a checkpoint's bytes."""
    return f"{zlib.crc32(read_regular(path, checkpoints.MOST)):08x}"


def _conditions(settings: Settings, spec: EnvSpec, crc32: str | None, device: torch.device) -> Json:
    """Return what decides the returns of episodes, as JSON; `crc32` is the checkpoint's."""
    return {
        "env": spec.to_json(),
        "checkpoint_crc32": crc32,
        "planner": settings.planner.model_dump(mode="json", exclude={"precision"}),
        "filter_by": settings.rssm.filter_by,
        "plan_by": settings.rssm.plan_by,
        "precision": EXACT if crc32 is None else planning_precision(settings, device),
        "device": str(device),
        "versions": versions(),
    }


class RunPlayer:
    """Plays with a learned model; the agent is built when it first plays."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Take what is played, and where the model runs."""
        self.checkpoint = checkpoint
        self.device = device
        self._agent: Agent | None = None

    def play(
        self, seeds: Sequence[int], width: int, pools: Pools, stages: Stages, on_episode: OnEpisode
    ) -> list[EpisodeResult]:
        """Play an episode a seed; see `Play`."""
        with stages("start"):
            pool = pools.of(self.checkpoint.settings.env, width)
            if self._agent is None:
                spec = require_same_environment(self.checkpoint.spec, pool.spec)
                self._agent = self._build(spec)
        policy = AgentPolicy.of_episodes(self._agent, seeds, width, stages=stages)
        fix = "free some, or lower planner.candidates with -s"
        with within_memory(self.device, "a decision", fix), stages("environment"):
            return play(pool, policy, seeds, None, on_episode)

    def _build(self, spec: EnvSpec) -> Agent:
        model, behavior = parts_of(self.checkpoint, self.device)
        return Agent.build(self.checkpoint.settings, spec, model, behavior, device=self.device)


def _open_policy(run: str, checkpoint: str, overrides: Sequence[str]) -> Subject:
    if checkpoint != "last":
        raise PlanetError(f"--checkpoint {checkpoint}: {run} has none; leave it out")
    name, settings = settings_of(run, overrides)
    with EnvPool(settings.env, 1) as pool:
        spec = pool.spec
    own_policy("RUN", name, spec, 1)  # a mistake is reported before anything is played

    def play_policy(
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
        conditions=_conditions(settings, spec, None, torch.device("cpu")) | {"policy": name},
        training=UNTRAINED,
        batch=BATCH,
        play=play_policy,
    )


def _open_simulator(run: str, checkpoint: str, overrides: Sequence[str]) -> Subject:
    if checkpoint != "last":
        raise PlanetError(
            f"--checkpoint {checkpoint}: {run} has none, nothing is learned; leave it out"
        )
    settings = simulator_settings(run, overrides)
    forbid_gl()
    from planet_rssm.planners import planner_from_settings
    from planet_rssm.simulator.dynamics import SimulatorPolicy
    from planet_rssm.simulator.local import LocalPool
    from planet_rssm.simulator.physics import Simulator

    pool = LocalPool(settings.env)
    simulator = Simulator(pool.env, torch.get_num_threads())
    planner = planner_from_settings(settings.planner, pool.spec.action_size)

    def play_simulator(
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
        conditions=_conditions(settings, pool.spec, None, torch.device("cpu")),
        training=UNTRAINED,
        batch=1,
        play=play_simulator,
    )
