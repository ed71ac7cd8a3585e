"""Where a run's return is lost, in the model, the planner or the filter: `planet diagnose`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planet_rssm.base.device import within_memory
from planet_rssm.base.json_types import Json
from planet_rssm.diagnosis.exchanged_parts import ExchangedParts
from planet_rssm.diagnosis.model_accuracy import ModelAccuracy, model_accuracy
from planet_rssm.evaluation.protocol import EpisodeResult, episode_seeds
from planet_rssm.evaluation.results import ObservationInfo, checkpoint_name
from planet_rssm.evaluation.statistics import Estimate, Summary, interval, summary
from planet_rssm.planners.limits import require_search
from planet_rssm.runs import checkpoint as checkpoints

EPISODES = 8
EVERY = 10
BUDGET = 10
PARTS = {"planner": "the planner's budget", "filter": "the filter", "model": "the model"}
# keys of ModelAccuracy, None in JSON where nothing was scored
UNMEASURED = dict.fromkeys(
    (
        "moments",
        "horizons",
        "rank_correlation",
        "optimism",
        "claimed",
        "reward_calibration",
        "continue_calibration",
    )
)


@dataclass(frozen=True)
class PartReturns:
    """The returns with one part exchanged."""

    episodes: list[float]
    summary: Summary

    def to_json(self) -> Json:
        """Return the numbers by name."""
        return {"episodes": self.episodes, **self.summary.to_json()}


@dataclass(frozen=True)
class Diagnosis:
    """What each part costs a run."""

    task: str
    planner: str
    planner_settings: Json
    seeds: list[int]  # of the episodes
    returns: dict[str, PartReturns]  # by part exchanged; `as is`: none
    gain: dict[str, Estimate]  # by part exchanged: of the return over `as is`
    exchanged_for: dict[str, str]  # by part, in words
    left_out: dict[str, str]  # what cannot be exchanged or compared, and why
    limit: str  # which part limits the return, in a sentence
    budget: int
    every: int
    accuracy: ModelAccuracy | None  # None: no candidate was scored
    checkpoint: str | int
    env_steps: int  # that it has learned from
    updates: int | None
    observation: ObservationInfo

    def to_json(self) -> Json:
        """Return the object that `planet diagnose --json` prints."""
        return {
            "task": self.task,
            "planner": self.planner,
            "seeds": self.seeds,
            "returns": {name: returns.to_json() for name, returns in self.returns.items()},
            "gain": {name: gain.to_json() for name, gain in self.gain.items()},
            "exchanged_for": self.exchanged_for,
            "left_out": self.left_out,
            "limit": self.limit,
            "budget": self.budget,
            "every": self.every,
            **(UNMEASURED if self.accuracy is None else self.accuracy.to_json()),
            "checkpoint": self.checkpoint,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "planner_settings": self.planner_settings,
            "observation": self.observation.to_json(),
        }


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
) -> Diagnosis:
    """Score candidates by the model and by the simulator, and exchange the agent's parts in turn.

    The same reset seeds are played noise-free by the agent as it is and with one part exchanged:

    - `planner`: `budget` times as many sequences, by more rounds and more candidates in equal
      parts, in the same model. An actor is exchanged for a search so large, with its proposals and
      the critic's value.
    - `filter`: of many beliefs the one that predicts the simulator best, see
      `policies.BestBeliefPolicy`.
    - `model`: the simulator is searched from the true state with the run's own planner settings.
      Its gain includes what the filter loses, for a true state needs no filter. Actor and critic
      are left out of it, and the search is `budget` times as large instead.

    During the first, one decision in `every` is scored: random sequences, sequences that the
    planner's last round proposes (or the actor draws) and the chosen plan are followed by the model
    from the filtered belief and by the simulator from the true state.

    Args:
        run: a run folder, `pretrained:NAME` or `hf:OWNER/NAME`.
        episodes: how many, of each part.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`.
        every: decisions from one that is scored to the next.
        budget: times as many sequences.
        device: where the model runs.
        on_stage: given the name of each part as its episodes begin.
        on_episode: given each episode as it ends.

    Returns:
        The result; what cannot be measured is named in `left_out`.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, an override that is
            refused, or environments that are no longer those of the training.
    """
    loaded, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
    settings = loaded.settings
    require_search(settings.planner, where)  # before any environment is started
    parts = ExchangedParts(loaded, where, episodes, budget, on_stage, on_episode)
    fix = "free some, or lower planner.candidates with -s, or --budget"
    with within_memory(where, "a decision", fix):
        moments = parts.play_all(every)
    returns = {
        name: [result.episode_return for result in played] for name, played in parts.played.items()
    }
    gains = {
        name: _gain(returns["as is"], values) for name, values in returns.items() if name != "as is"
    }
    accuracy = model_accuracy(moments, settings, loaded.spec.terminates) if moments else None
    return Diagnosis(
        task=loaded.spec.id,
        planner=settings.planner.label,
        planner_settings=settings.planner.model_dump(),
        seeds=episode_seeds(episodes),
        returns={name: PartReturns(values, summary([values])) for name, values in returns.items()},
        gain=gains,
        exchanged_for=parts.exchanged_for,
        left_out=parts.left_out,
        limit=limit(gains, settings.planner.name),
        budget=budget,
        every=every,
        accuracy=accuracy,
        checkpoint=checkpoint_name(checkpoint),
        env_steps=loaded.progress["env_steps"],
        updates=loaded.progress.get("updates"),
        observation=ObservationInfo.of(settings.env, loaded.spec),
    )


def _gain(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return the mean difference by episode, and its interval over episodes."""
    differences = [float(b) - float(a) for a, b in zip(before, after, strict=True)]
    return Estimate(float(np.mean(differences)), list(interval([differences])))


def limit(gains: Mapping[str, Estimate], planner: str = "") -> str:
    """Return in a sentence which part limits the return of a run with such a `planner`.

    It is the one with the largest gain whose interval lies above 0.
    """
    parts = PARTS | ({"planner": "the actor"} if planner == "actor" else {})
    name = max(gains, key=lambda part: (gains[part].episode_ci95[0] > 0, gains[part].mean))
    gain = gains[name]
    low, high = gain.episode_ci95
    part = f"{parts[name]} ({gain.mean:+.0f}, 95 % {low:.0f} to {high:.0f})"
    if low > 0:
        return f"what limits this run: {part}"
    return f"no part limits this run beyond the chance of its episodes; nearest to it: {part}"
