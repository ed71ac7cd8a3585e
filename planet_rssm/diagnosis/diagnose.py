"""Where a run's return is lost, in the model, the planner or the filter: what `planet diagnose` does."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planet_rssm.agent import Agent, AgentPolicy, parts_of, require_search
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.collect import Policy
from planet_rssm.config import PlannerSettings, Settings, learned_parts
from planet_rssm.diagnosis.forecast import (
    by_episode,
    calibration,
    horizons_of,
    reached,
    returns_by_horizon,
    spearman,
)
from planet_rssm.envs.pool import EnvPool, Pool
from planet_rssm.evaluation.plan_run import same_pixels
from planet_rssm.evaluation.protocol import PARALLEL, EpisodeResult, episode_seeds, play
from planet_rssm.evaluation.statistics import interval, summary
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint

EPISODES, EVERY, BUDGET = 8, 10, 10
SAID = {"planner": "the planner's budget", "filter": "the filter", "model": "the model"}

_log = logging.getLogger("planet_rssm")


def diagnose_run(
    run: Path,
    episodes: int = EPISODES,
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    every: int = EVERY,
    budget: int = BUDGET,
    device: str = "auto",
    on_stage: Callable[[str], None] = lambda name: None,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> dict[str, Any]:
    """Score candidates by the model and by the simulator, and exchange parts of the agent for better ones, in turn.

    The same reset seeds are played noise-free by the agent as it is and with one part exchanged:

    - `planner`: `budget` times as many sequences, by more rounds and more candidates in equal
      parts, in the same model.
    - `filter`: the belief that foretells the simulator best, of many, see
      `substitutes.JudgedFilter`.
    - `model`: the simulator is searched from the true state with the run's own planner settings.
      Its gain includes what the filter loses, for a true state needs no filter.

    During the first, at every so-manieth decision, random sequences, sequences that the planner's
    last round proposes and the chosen plan are followed by the model from the filtered belief and
    by the simulator from the true state.

    Args:
        run: a run folder, or `pretrained:NAME`.
        episodes: how many, of each part.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`.
        every: decisions from one that is scored to the next.
        budget: times as many sequences.
        device: where the model runs.
        on_stage: told the name of each part as its episodes begin.
        on_episode: told each episode as it ends.

    Returns:
        The object that `planet diagnose --json` prints; what cannot be measured is None, and named
        in `left_out`.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, an override that is
            refused, or environments that are no longer those of the training; the planner needs an
            actor or a critic.
    """
    held, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
    settings = held.settings
    require_search(settings.planner, where)  # before any environment is started
    if asked := learned_parts(settings.planner):
        key, other = asked.split()[0], "cem" if settings.planner.name == "actor" else "none"
        raise PlanetError(
            f"{asked}: only parts of a search without actor and critic can be exchanged; add -s {key}={other}"
        )
    parts = _Parts(held, where, episodes, on_stage, on_episode)
    with within_memory(
        where, "a decision", "free some, or lower planner.candidates with -s, or --budget"
    ):
        moments = parts.play_all(every, budget)
    returns = {
        name: [result.episode_return for result in played] for name, played in parts.played.items()
    }
    gains = {
        name: _gain(returns["as is"], other) for name, other in returns.items() if name != "as is"
    }
    return {
        "task": held.spec.id,
        "planner": settings.planner.name,
        "seeds": episode_seeds(episodes),
        "returns": {
            name: {"episodes": values, **summary([values])} for name, values in returns.items()
        },
        "gain": gains,
        "left_out": parts.left_out,
        "limit": limit(gains),
        "budget": budget,
        "every": every,
        **(measured(moments, settings, held.spec.terminates) if moments else UNMEASURED),
        "checkpoint": int(checkpoint) if checkpoint.isdecimal() else checkpoint,
        "env_steps": held.progress["env_steps"],
        "updates": held.progress.get("updates"),
        "planner_settings": settings.planner.model_dump(),
        "observation": {
            "observe": settings.env.observe,
            "renderer": held.spec.renderer,
            "size": settings.env.size,
            "simulator": held.spec.simulator,
        },
    }


class _Parts:
    """Plays the run's episodes, as it is and with each part exchanged."""

    def __init__(
        self,
        held: Checkpoint,
        device: torch.device,
        episodes: int,
        on_stage: Callable[[str], None],
        on_episode: Callable[[EpisodeResult], None],
    ) -> None:
        self._held, self._settings, self._device = held, held.settings, device
        self._model, self._behavior = parts_of(held, device)
        self._rows, self._seeds = min(episodes, PARALLEL), episode_seeds(episodes)
        self._on_stage, self._on_episode = on_stage, on_episode
        self.played: dict[str, list[EpisodeResult]] = {}
        self.left_out: dict[str, str] = {}

    def play_all(self, every: int, budget: int) -> list[Any]:
        """Play all parts; return the moments that were scored."""
        env = self._settings.env
        with EnvPool(env, self._rows) as pool:
            same_pixels(self._held.spec, pool.spec)
            if not env.id.startswith("dmc/"):
                reason = f"{env.id}: only dm_control's tasks can be simulated beside the model"
                self.left_out = dict.fromkeys(("candidates", "filter", "model"), reason)
                self._play("as is", pool, AgentPolicy(self._agent(), self._rows))
                self._play("planner", pool, AgentPolicy(self._agent(budget), self._rows))
                return []
            return self._beside_simulator(pool, every, budget)

    def _beside_simulator(self, pool: EnvPool, every: int, budget: int) -> list[Any]:
        os.environ["MUJOCO_GL"] = (
            "disable"  # this process has torch in it: no software GL, whatever the user's is
        )
        logging.getLogger("absl").setLevel(
            logging.ERROR
        )  # mujoco says that dm_control's models are of an older style
        from planet_rssm.diagnosis.agents import JudgedFilter, WatchedAgent
        from planet_rssm.simulator.dynamics import SimulatorPolicy
        from planet_rssm.simulator.local import LocalPool
        from planet_rssm.simulator.physics import Simulator
        from planet_rssm.simulator.shadow import ShadowedPool, unseen

        env, threads = self._settings.env, torch.get_num_threads()
        shadowed = ShadowedPool(pool, env, threads)
        if not shadowed.simulators[0].batched:
            _log.warning(
                "%s: its reward is asked of the task, state by state: slower than PlaNet's six tasks",
                env.id,
            )
        watched = WatchedAgent(self._agent(), shadowed, every)
        self._play("as is", shadowed, watched)
        self._play("planner", pool, AgentPolicy(self._agent(budget), self._rows))
        if self._settings.rssm.filter_by == "sample":
            self._play("filter", shadowed, JudgedFilter(self._agent(), shadowed))
        else:
            self.left_out["filter"] = (
                "rssm.filter_by = mode: of each belief there is one only, none to choose from"
            )
        alone = LocalPool(unseen(env))
        planner = planner_from_settings(self._settings.planner, pool.spec.action_size)
        simulator = Simulator(alone.env, threads)
        discount = self._settings.planner.discount
        self._play("model", alone, SimulatorPolicy([simulator], planner, discount=discount))
        return watched.moments

    def _play(self, name: str, pool: Pool, policy: Policy) -> None:
        self._on_stage(name)
        self.played[name] = play(pool, policy, self._seeds, on_episode=self._on_episode)

    def _agent(self, budget: int = 1) -> Agent:
        settings = self._settings.model_copy(
            update={"planner": larger(self._settings.planner, budget)}
        )
        return Agent.build(
            settings, self._held.spec, self._model, self._behavior, device=self._device
        )


def larger(planner: PlannerSettings, budget: int) -> PlannerSettings:
    """Return a planner that scores about `budget` times as many sequences, by more rounds and more of each."""
    rounds = round(math.sqrt(budget))  # what many candidates find, few rounds do not narrow down
    more = {
        "iterations": rounds * planner.iterations,
        "candidates": round(budget / rounds * planner.candidates),
        "elites": math.floor(budget / rounds * planner.elites),
        "decay": planner.decay
        ** (1 / rounds),  # icem: over all rounds the population shrinks as much as before
    }
    return planner.model_copy(update=more)


def _gain(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Return the mean difference by episode, and its interval over episodes."""
    differences = [float(b) - float(a) for a, b in zip(before, after, strict=True)]
    return {"mean": float(np.mean(differences)), "episode_ci95": list(interval([differences]))}


def limit(gains: dict[str, dict[str, Any]]) -> str:
    """Say in one sentence which part limits the return: the largest gain whose interval lies above 0."""
    name = max(gains, key=lambda part: (gains[part]["episode_ci95"][0] > 0, gains[part]["mean"]))
    low, high = gains[name]["episode_ci95"]
    said = f"{SAID[name]} ({gains[name]['mean']:+.0f}, 95 % {low:.0f} to {high:.0f})"
    if low > 0:
        return f"what limits this run: {said}"
    return f"no part limits this run beyond the chance of its episodes; nearest to it: {said}"


UNMEASURED = dict.fromkeys(("moments", "horizons", "rank_correlation", "optimism", "claimed", "reward_calibration",
                            "continue_calibration"))  # fmt: skip


def measured(moments: Sequence[Any], settings: Settings, terminates: bool) -> dict[str, Any]:
    """Return what the scored moments say.

    `rank_correlation` has for random and for planned candidates, by horizon, Spearman's with `one`
    future of each as the planner sees it and with the `mean` of all that were drawn; `optimism` is
    the return that the model imagines of the chosen plan less the one it has, `claimed` the
    planner's own belief less that.
    """
    horizons = horizons_of(settings.planner.horizon)
    objective = Objective(settings.planner.discount)

    def worth(reward: np.ndarray, discount: np.ndarray) -> np.ndarray:
        return returns_by_horizon(
            torch.from_numpy(reward), torch.from_numpy(discount), horizons, objective
        ).numpy()

    episodes = [moment.episode for moment in moments]
    correlation: dict[str, Any] = {}
    for kind in ("random", "planned"):
        one, mean = [], []
        for moment in moments:
            said, real = _worths(moment.foretold[kind], worth)
            one.append(
                spearman(
                    said.swapaxes(1, 2), np.broadcast_to(real.T, said.swapaxes(1, 2).shape)
                ).mean(0)
            )
            mean.append(spearman(said.mean(0).T, real.T))
        correlation[kind] = {
            name: _columns(values, episodes) for name, values in (("one", one), ("mean", mean))
        }
    chosen = [_worths(moment.foretold["chosen"], worth) for moment in moments]
    optimism = [
        (said.mean(0) - real)[0] if len(real) else np.full(len(horizons), np.nan)
        for said, real in chosen
    ]
    claimed = [
        m.claimed - real[0, -1] if len(real) else np.nan
        for m, (_, real) in zip(moments, chosen, strict=True)
    ]
    return {
        "moments": len(moments),
        "horizons": horizons,
        "rank_correlation": correlation,
        "optimism": _columns(optimism, episodes),
        "claimed": by_episode(claimed, episodes),
        "reward_calibration": _calibrated(moments, "reward"),
        "continue_calibration": _calibrated(moments, "discount") if terminates else None,
    }


def _worths(foretold: Any, worth: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
    """Return what was said [S, N, K] and what was real [N, K] of the sequences that the simulator did not break on."""
    real = worth(foretold.real_reward, foretold.real_discount)
    whole = np.isfinite(real).all(-1)
    return worth(foretold.reward, foretold.discount)[:, whole], real[whole]


def _columns(values: Sequence[np.ndarray], episodes: Sequence[int]) -> list[dict[str, Any] | None]:
    """Return for each horizon the mean and interval of [K] numbers a moment."""
    return [by_episode(list(column), episodes) for column in zip(*values, strict=True)]


def _calibrated(moments: Sequence[Any], name: str) -> list[dict[str, float]]:
    """Return the bins of a head's mean over futures beside the truth, at every step that is reached."""
    predicted, real = [], []
    for moment in moments:
        for kind in ("random", "planned"):
            foretold = moment.foretold[kind]
            truth = getattr(foretold, f"real_{name}")
            counts = reached(foretold.real_discount) & np.isfinite(foretold.real_reward)
            predicted.append(getattr(foretold, name).mean(0)[counts])
            real.append(truth[counts])
    return calibration(np.concatenate(predicted), np.concatenate(real))
