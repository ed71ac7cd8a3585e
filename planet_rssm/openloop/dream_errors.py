"""Open-loop imagination: what a world model predicts of recorded episodes.

A start is `context` frames that are filtered from the initial state, as a training chunk begins;
from there the model imagines with the actions that were recorded. Horizon h is h agent steps after
the last observed frame.

All errors are mean squared errors, each row against the same truth. Images are in pixels of 0 to 1,
as the model observes them. Where it observes 5 bits, truth, last frame and mean frame are the
middles of these 32 levels, so that rounding costs no error. Vectors are in symlog units, rewards in
the environment's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.base.device import generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.data.episode import Episode
from planet_rssm.openloop.imagination import decoded, decoder_targets, filtered, latent_noise
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel

HORIZONS = (1, 5, 15, 45)  # agent steps
CONTEXT = 5  # frames
STARTS = 20  # of an episode
ROWS = 128  # starts imagined at once
KINDS = ("image", "vector")
ROWS_OF_KIND = ("error", "copy_last", "mean_frame", "shuffled_actions")


class Starts(NamedTuple):
    """R places to imagine from, and K horizons.

    Frames beyond the end of an episode repeat its last one.
    """

    context: dict[str, Tensor]  # [R, context, ...], as the environment gave them
    action: Tensor  # [R, context + H, A], the one that led to each frame
    other: Tensor  # [R, H, A], of another episode
    target: dict[str, Tensor]  # [R, K, ...]
    reward: Tensor  # [R, K]
    reached: Tensor  # bool [R, K], False where the episode was over


class Predicted(NamedTuple):
    """What a model predicts at K horizons from R starts."""

    observation: dict[str, Tensor]  # [R, K, ...], as `decoder_targets`
    reward: Tensor  # [R, K]


@dataclass(frozen=True)
class DreamErrors:
    """Mean squared errors at each horizon, beside those that a model must beat.

    `errors` has for `image` and for `vector` (None where there are none): `_error` of the model,
    `_copy_last` (the last observed frame, kept), `_mean_frame` (of these episodes) and
    `_shuffled_actions` (imagined with the actions of another episode). Of the reward it has
    `reward_error`, `reward_mean` (always the mean reward of these episodes) and
    `reward_shuffled_actions`.
    """

    horizons: list[int]  # agent steps
    starts: list[int]  # how many each average is over
    errors: dict[str, list[float] | None]

    def to_json(self) -> Json:
        """Return the numbers by name."""
        return {"horizons": self.horizons, "starts": self.starts, **self.errors}


def dream_errors(
    model: WorldModel,
    episodes: Sequence[Episode],
    horizons: Sequence[int] = HORIZONS,
    context: int = CONTEXT,
    device: torch.device | None = None,
    starts: int = STARTS,
    samples: int = 1,
) -> DreamErrors:
    """Measure how far from the truth a model imagines; the same numbers at every call.

    One latent sample is followed from each start (modes where `rssm.filter_by` or `rssm.plan_by`
    ask for them), in float32: the error of one imagined future. Where several futures are possible
    a single one has up to twice the squared error of the best guess; the mean of many `samples` is
    such a guess, and the fair rival of the mean frame.

    An average is over all starts that reach a horizon; in an episode too short for the largest
    horizon the only start is its first frame. Horizons that no episode reaches are left out.

    Args:
        model: on `device`.
        episodes: at least two, of the model's environment.
        horizons: agent steps ahead, each at least 1.
        context: frames that are filtered first, at least 1.
        device: where the model is; None: the CPU.
        starts: at most so many places in an episode, evenly spread.
        samples: the prediction is the mean over so many.

    Raises:
        PlanetError: fewer than two episodes, or none is longer than the context.
    """
    device = device or torch.device("cpu")
    horizons = _reached(episodes, sorted(set(horizons)), context)
    mean = _mean_frame(model, episodes, device)
    # the first reward of an episode came with no action
    rewards = np.concatenate([episode.reward[1:] for episode in episodes])
    mean_reward = float(rewards.mean(dtype=np.float64))
    totals: dict[str, Tensor] = {}
    for index, batch in enumerate(_batches(episodes, horizons, context, starts, device)):
        rng = generator(stream_seed(0, Stream.DREAM, index), device)
        errors = _errors(model, batch, horizons, samples, mean, rng)
        errors["reward_mean"] = (batch.reward - mean_reward).square()
        errors["starts"] = torch.ones_like(batch.reward)
        for name, error in errors.items():
            total = error.double().where(batch.reached, 0.0).sum(0)
            totals[name] = totals[name] + total if name in totals else total
    count = totals.pop("starts")
    measured = {name: (total / count).tolist() for name, total in totals.items()}
    empty = {f"{kind}_{row}": None for kind in KINDS for row in ROWS_OF_KIND}
    return DreamErrors(horizons, [int(number) for number in count], {**empty, **measured})


def _reached(episodes: Sequence[Episode], horizons: list[int], context: int) -> list[int]:
    """Return the horizons that the longest episode has; refuse episodes that have none."""
    longest = max((episode.length for episode in episodes), default=0) - context
    if len(episodes) < 2:
        raise PlanetError(
            f"{len(episodes)} episode(s): at least 2 are needed, one lends the other its actions; "
            "give more"
        )
    if longest < horizons[0]:
        raise PlanetError(
            f"episodes of at most {longest + context} frames: too short for a context of {context} "
            f"and a horizon of {horizons[0]}; lower one of them, or give longer episodes"
        )
    return [horizon for horizon in horizons if horizon <= longest]


def _batches(
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    context: int,
    starts: int,
    device: torch.device,
) -> Iterator[Starts]:
    """Yield all starts, `ROWS` at a time.

    Other actions are those of the episode that lies half the set further on.
    """
    places = []
    for number, episode in enumerate(episodes):
        if episode.length >= context + horizons[0]:
            last = max(episode.length - context - horizons[-1], 0)
            other = episodes[(number + len(episodes) // 2) % len(episodes)]
            places += [
                (episode, other, int(at))
                for at in np.unique(np.linspace(0, last, starts).astype(int))
            ]
    for first in range(0, len(places), ROWS):
        yield _stacked(
            [
                _start(episode, other, at, horizons, context)
                for episode, other, at in places[first : first + ROWS]
            ],
            device,
        )


def _start(
    episode: Episode, other: Episode, at: int, horizons: Sequence[int], context: int
) -> "dict[str, np.ndarray | dict[str, np.ndarray]]":
    """Return one start as arrays.

    The actions of `other` are taken from the same time on, and begin again at its end.
    """
    steps = at + context + np.arange(horizons[-1])
    targets = at + context - 1 + np.array(horizons)
    inside = targets.clip(max=episode.length - 1)
    ahead = episode.action[steps.clip(max=episode.length - 1)]
    return {
        "context": {key: value[at : at + context] for key, value in episode.observation.items()},
        "action": np.concatenate([episode.action[at : at + context], ahead]),
        "other": other.action[1:].take(steps - 1, axis=0, mode="wrap"),
        "target": {key: value[inside] for key, value in episode.observation.items()},
        "reward": episode.reward[inside],
        "reached": targets < episode.length,
    }


def _stacked(rows: Sequence[Mapping[str, object]], device: torch.device) -> Starts:
    def stack(values: Sequence[Any]) -> Any:  # noqa: ANN401 (arrays, or dicts of them)
        if isinstance(values[0], dict):
            return {key: stack([value[key] for value in values]) for key in values[0]}
        return torch.from_numpy(np.stack(values)).to(device)

    return Starts(**{name: stack([row[name] for row in rows]) for name in Starts._fields})


@torch.inference_mode()
def _errors(
    model: WorldModel,
    batch: Starts,
    horizons: Sequence[int],
    samples: int,
    mean: Mapping[str, Tensor],
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """Return every squared error [R, K] by its name."""
    target = decoder_targets(model, batch.target)
    drawn = [_imagined(model, batch, horizons, rng) for _ in range(samples)]
    errors: dict[str, Tensor] = {}
    for name in drawn[0]:
        predicted = [sample[name] for sample in drawn]
        observation = {
            key: torch.stack([one.observation[key] for one in predicted]).mean(0)
            for key in predicted[0].observation
        }
        reward = torch.stack([one.reward for one in predicted]).mean(0)
        errors |= _by_kind(model, observation, target, name)
        errors[f"reward_{name}"] = (reward - batch.reward).square()
    final = {key: value[:, -1:] for key, value in batch.context.items()}
    final = decoder_targets(model, final)
    return (
        errors
        | _by_kind(model, final, target, "copy_last")
        | _by_kind(model, mean, target, "mean_frame")
    )


def _imagined(
    model: WorldModel, batch: Starts, horizons: Sequence[int], rng: torch.Generator
) -> dict[str, Predicted]:
    """Return what one sample predicts with the true actions and with others.

    Only the actions differ.
    """
    rows, ahead = batch.other.shape[:2]
    context = batch.action.shape[1] - ahead
    belief = filtered(model, batch.context, batch.action[:, :context], rng)
    last = State(belief.deter[:, -1], belief.stoch[:, -1])
    noise = latent_noise(model, (rows, ahead), "plan_by", rng)
    picked = torch.tensor(horizons, device=batch.reward.device) - 1
    predicted = {}
    for name, action in (("error", batch.action[:, context:]), ("shuffled_actions", batch.other)):
        states = model.rssm.imagine(last, action, noise)
        states = State(states.deter[:, picked], states.stoch[:, picked])
        predicted[name] = Predicted(decoded(model, states), model.predict_reward(states))
    return predicted


def _by_kind(
    model: WorldModel, predicted: Mapping[str, Tensor], target: Mapping[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Return the mean squared errors [R, K] of all images together, and of all vectors."""
    kinds = zip(KINDS, (model.encoder.image_keys, model.encoder.vector_keys), strict=True)
    errors: dict[str, Tensor] = {}
    for kind, keys in kinds:
        if keys:
            off = [(predicted[key] - target[key]).square().flatten(2) for key in keys]
            errors[f"{kind}_{name}"] = torch.cat(off, -1).mean(-1)
    return errors


def _mean_frame(
    model: WorldModel, episodes: Sequence[Episode], device: torch.device
) -> dict[str, Tensor]:
    """Return the mean over all frames of each observation [...], as `decoder_targets`."""
    totals: dict[str, Tensor] = {}
    for episode in episodes:
        observation = {
            key: torch.from_numpy(value).to(device) for key, value in episode.observation.items()
        }
        for key, value in decoder_targets(model, observation).items():
            total = value.double().sum(0)
            totals[key] = totals[key] + total if key in totals else total
    frames = sum(episode.length for episode in episodes)
    return {key: (total / frames).float() for key, total in totals.items()}
