"""Open-loop imagination: what a world model foretells of recorded episodes that it cannot see any further.

A start is `context` frames that are filtered from the initial state, as a training chunk begins;
from there the model imagines with the actions that were recorded. Horizon h is h agent steps after
the last frame it saw.

All errors are mean squared errors, each row against the same truth. Images are in pixels of 0 to 1
and as the model is shown them: where it is shown 5 bits, truth, last frame and mean frame are the
middles of these 32 levels, so that nobody pays for what was rounded away. Vectors are in symlog
units, rewards in the environment's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.base.device import generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.data.episode import Episode
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel
from planet_rssm.world_model.observations import preprocess

HORIZONS = (1, 5, 15, 45)  # agent steps
CONTEXT = 5  # frames
STARTS = 20  # of an episode
ROWS = 128  # starts imagined at once
KINDS = ("image", "vector")


class Starts(NamedTuple):
    """R places to imagine from; K horizons. Frames beyond the end of an episode repeat its last one."""

    context: dict[str, Tensor]  # [R, context, ...], as the environment gave them
    action: Tensor  # [R, context + H, A], the one that led to each frame
    other: Tensor  # [R, H, A], of another episode
    target: dict[str, Tensor]  # [R, K, ...]
    reward: Tensor  # [R, K]
    reached: Tensor  # bool [R, K], False where the episode was over


class Foretold(NamedTuple):
    """What a model says of K horizons from R starts."""

    observation: dict[str, Tensor]  # [R, K, ...], as `shown`
    reward: Tensor  # [R, K]


def dream_errors(
    model: WorldModel,
    episodes: Sequence[Episode],
    horizons: Sequence[int] = HORIZONS,
    context: int = CONTEXT,
    device: torch.device | None = None,
    starts: int = STARTS,
    samples: int = 1,
) -> dict[str, Any]:
    """Measure how far from the truth a model imagines, beside what it must beat; the same numbers at every call.

    One latent sample is followed from each start (modes where `rssm.filter_by` or `rssm.plan_by`
    say so), in float32: what one imagined future is off. Where several futures are possible a
    single one has up to twice the squared error of the best guess; the mean of many `samples` is
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
        samples: what is foretold is the mean over so many.

    Returns:
        Lists by horizon: `horizons`, `starts` (how many each average is over), and for `image` and
            `vector` (None where
        there are none): `_error`, `_copy_last` (the last frame seen, kept), `_mean_frame` (of these
        very episodes) and `_shuffled_actions` (imagined with the actions of another episode);
        `reward_error`, `reward_mean` (the error of always foretelling the mean reward of these
        episodes) and `reward_shuffled_actions`.

    Raises:
        PlanetError: fewer than two episodes, or none is longer than the context.
    """
    device = device or torch.device("cpu")
    horizons = _reached(episodes, sorted(set(horizons)), context)
    mean = _mean_frame(model, episodes, device)
    rewards = np.concatenate(
        [episode.reward[1:] for episode in episodes]
    )  # the first came with no action
    totals: dict[str, Tensor] = {}
    for index, batch in enumerate(_batches(episodes, horizons, context, starts, device)):
        rng = generator(stream_seed(0, Stream.DREAM, index), device)
        errors = _errors(model, batch, horizons, samples, mean, rng)
        errors["reward_mean"] = (batch.reward - float(rewards.mean(dtype=np.float64))).square()
        errors["starts"] = torch.ones_like(batch.reward)
        for name, error in errors.items():
            total = error.double().where(batch.reached, 0.0).sum(0)
            totals[name] = totals[name] + total if name in totals else total
    count = totals.pop("starts")
    measured = {name: (total / count).tolist() for name, total in totals.items()}
    parts = ("error", "copy_last", "mean_frame", "shuffled_actions")
    empty = {f"{kind}_{part}": None for kind in KINDS for part in parts}
    return {"horizons": horizons, "starts": [int(number) for number in count], **empty, **measured}


class Film(NamedTuple):
    """R imagined sequences of T frames, in pixels of 0 to 1 [R, T, size, size, 3]; the first `context` were seen."""

    truth: np.ndarray
    prediction: np.ndarray
    context: int


@torch.inference_mode()
def dream_film(
    model: WorldModel,
    episodes: Sequence[Episode],
    horizon: int,
    context: int,
    device: torch.device,
    rows: int = 3,
) -> Film:
    """Return what a model sees and then imagines from the first frames of a few episodes, of the first image key.

    Args:
        model: on `device`; it sees images.
        episodes: `rows` at most are taken of those with `context + horizon` frames, evenly spread;
            there must be one.
        horizon: agent steps that are imagined.
        context: frames that are filtered first; of them the prediction is what the belief decodes
            to.
        device: where the model is.
        rows: sequences at most.
    """
    length, key = context + horizon, model.encoder.image_keys[0]
    long = [episode for episode in episodes if episode.length >= length]
    chosen = [long[at] for at in np.unique(np.linspace(0, len(long) - 1, rows).astype(int))]
    observation = {
        name: torch.from_numpy(
            np.stack([episode.observation[name][:length] for episode in chosen])
        ).to(device)
        for name in chosen[0].observation
    }
    action = torch.from_numpy(np.stack([episode.action[:length] for episode in chosen])).to(device)
    rng = generator(stream_seed(0, Stream.DREAM, 0), device)
    past = {name: value[:, :context] for name, value in observation.items()}
    belief = filtered(model, past, action[:, :context], rng)
    last = State(belief.deter[:, -1], belief.stoch[:, -1])
    ahead = model.rssm.imagine(
        last, action[:, context:], _noise(model, (len(chosen), horizon), "plan_by", rng)
    )
    prediction = [decoded(model, states)[key] for states in (belief, ahead)]
    return Film(_pixels(shown(model, observation)[key]), _pixels(torch.cat(prediction, 1)), context)


def _pixels(image: Tensor) -> np.ndarray:
    return (image + 0.5).clamp(0, 1).float().cpu().numpy()


def _reached(episodes: Sequence[Episode], horizons: list[int], context: int) -> list[int]:
    """Return the horizons that the longest episode has, and refuse episodes that show nothing."""
    longest = max((episode.length for episode in episodes), default=0) - context
    if len(episodes) < 2:
        raise PlanetError(
            f"{len(episodes)} episode(s): at least 2 are needed, one lends the other its actions; give more"
        )
    if longest < horizons[0]:
        raise PlanetError(
            f"episodes of at most {longest + context} frames: too short for a context of {context} and a horizon of "
            f"{horizons[0]}; lower one of them, or give longer episodes"
        )
    return [horizon for horizon in horizons if horizon <= longest]


def _batches(
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    context: int,
    starts: int,
    device: torch.device,
) -> Iterator[Starts]:
    """Yield all starts, `ROWS` at a time; half the set further on lies the episode whose actions are borrowed."""
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
            [_start(*place, horizons, context) for place in places[first : first + ROWS]], device
        )


def _start(
    episode: Episode, other: Episode, at: int, horizons: Sequence[int], context: int
) -> dict[str, Any]:
    """Return one start as arrays; `other`'s actions are taken from the same time on and begin again at its end."""
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


def _stacked(rows: Sequence[Mapping[str, Any]], device: torch.device) -> Starts:
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
    target = shown(model, batch.target)
    drawn = [_imagined(model, batch, horizons, rng) for _ in range(samples)]
    errors: dict[str, Tensor] = {}
    for name in drawn[0]:
        said = [sample[name] for sample in drawn]
        observation = {
            key: torch.stack([one.observation[key] for one in said]).mean(0)
            for key in said[0].observation
        }
        reward = torch.stack([one.reward for one in said]).mean(0)
        errors |= _by_kind(model, observation, target, name)
        errors[f"reward_{name}"] = (reward - batch.reward).square()
    final = shown(model, {key: value[:, -1:] for key, value in batch.context.items()})
    return (
        errors
        | _by_kind(model, final, target, "copy_last")
        | _by_kind(model, mean, target, "mean_frame")
    )


def _imagined(
    model: WorldModel, batch: Starts, horizons: Sequence[int], rng: torch.Generator
) -> dict[str, Foretold]:
    """Return what one sample says with the true actions and with others; only the actions differ."""
    rows, ahead = batch.other.shape[:2]
    context = batch.action.shape[1] - ahead
    belief = filtered(model, batch.context, batch.action[:, :context], rng)
    last = State(belief.deter[:, -1], belief.stoch[:, -1])
    noise = _noise(model, (rows, ahead), "plan_by", rng)
    picked = torch.tensor(horizons, device=batch.reward.device) - 1
    said = {}
    for name, action in (("error", batch.action[:, context:]), ("shuffled_actions", batch.other)):
        states = model.rssm.imagine(last, action, noise)
        states = State(states.deter[:, picked], states.stoch[:, picked])
        said[name] = Foretold(decoded(model, states), model.predict_reward(states))
    return said


def filtered(
    model: WorldModel, seen: Mapping[str, Tensor], action: Tensor, rng: torch.Generator
) -> State:
    """Return the beliefs [R, T, ...] of a model that is shown `seen` [R, T, ...] from the initial state on."""
    rows, length = action.shape[:2]
    first = torch.zeros(rows, length, dtype=torch.bool, device=action.device)
    first[:, 0] = True
    embed = model.encode(seen, model.draw_pixels((rows, length), rng, action.device))
    return model.rssm.observe(
        embed, action, first, _noise(model, (rows, length), "filter_by", rng)
    )[0]


def decoded(model: WorldModel, states: State) -> dict[str, Tensor]:
    """Return the mean observations [R, T, ...] of states [R, T, ...] by key, in the units of `shown`."""
    rows = states.deter.shape[:2]
    flat = model.decode(State(states.deter.flatten(0, 1), states.stoch.flatten(0, 1)))
    return {key: value.unflatten(0, rows) for key, value in flat.items()}


def shown(model: WorldModel, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a decoder should say of observations [*B, ...]: images less 0.5 at the middle of their level."""
    levels = model.encoder.image_keys if model.settings.pixels == "quantised" else []
    return preprocess(
        observation,
        {key: torch.full_like(observation[key], 0.5, dtype=torch.float32) for key in levels},
    )


def _noise(
    model: WorldModel, lead: tuple[int, ...], way: str, rng: torch.Generator
) -> Tensor | None:
    sampled = getattr(model.rssm.settings, way) == "sample"
    return (
        torch.randn(*lead, model.rssm.noise_size, generator=rng, device=rng.device)
        if sampled
        else None
    )


def _by_kind(
    model: WorldModel, foretold: Mapping[str, Tensor], target: Mapping[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Return the mean squared errors [R, K] of all images together, and of all vectors."""
    kinds = zip(KINDS, (model.encoder.image_keys, model.encoder.vector_keys), strict=True)
    errors: dict[str, Tensor] = {}
    for kind, keys in kinds:
        if keys:
            off = [(foretold[key] - target[key]).square().flatten(2) for key in keys]
            errors[f"{kind}_{name}"] = torch.cat(off, -1).mean(-1)
    return errors


def _mean_frame(
    model: WorldModel, episodes: Sequence[Episode], device: torch.device
) -> dict[str, Tensor]:
    """Return the mean over all frames of each observation [...], as `shown`."""
    totals: dict[str, Tensor] = {}
    for episode in episodes:
        seen = {
            key: torch.from_numpy(value).to(device) for key, value in episode.observation.items()
        }
        for key, value in shown(model, seen).items():
            total = value.double().sum(0)
            totals[key] = totals[key] + total if key in totals else total
    frames = sum(episode.length for episode in episodes)
    return {key: (total / frames).float() for key, total in totals.items()}
