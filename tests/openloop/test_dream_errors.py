"""Open-loop errors on episodes whose every number is known, and of a model that has learned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import RSSMSettings
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.openloop.dream_errors import dream_errors
from planet_rssm.openloop.dream_frames import dream_frames
from planet_rssm.training.learner import Learner
from planet_rssm.types import State
from planet_rssm.world_model import untrained_model
from planet_rssm.world_model.networks import symlog

CPU = torch.device("cpu")
TINY = [
    "model.depth=1",
    "rssm.deter=8",
    "rssm.stoch=3",
    "rssm.hidden=8",
    "model.reward_units=8",
    "model.vector_units=8",
]


def spec_of(observation) -> EnvSpec:
    return EnvSpec("test/line", observation, 1, 1, 0.1, 100, "own", "none 0")


PIXELS = spec_of({"image": ((32, 32, 3), "uint8")})
VECTORS = spec_of({"place": ((1,), "float32")})
BOTH = spec_of({"image": ((32, 32, 3), "uint8"), "place": ((1,), "float32")})


def model_for(spec: EnvSpec, *overrides: str):
    return untrained_model(config.load("planet", [*TINY, *overrides]), spec)


def episode_of(observation, action, reward, spec: EnvSpec) -> Episode:
    info = {"env": spec.to_json(), "seed": 0, "env_steps": len(action)}
    return Episode.from_transitions(observation, action, reward, False, True, info)


def fading(frames: int) -> Episode:
    """Frame t has level t of 32 everywhere, and reward t."""
    level = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    image = np.broadcast_to(8 * level + 3, (frames, 32, 32, 3)).copy()
    reward = np.arange(1, frames, dtype=np.float32)
    return episode_of({"image": image}, np.zeros((frames - 1, 1), np.float32), reward, PIXELS)


def walk(steps: int, rng: np.random.Generator, spec: EnvSpec = VECTORS) -> Episode:
    """A place that every action moves by itself; the reward is the place arrived at."""
    action = rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
    place = np.concatenate([[[0.5]], 0.5 + np.cumsum(action, 0)]).astype(np.float32)
    observation = {"place": place}
    if "image" in spec.observation:
        observation["image"] = np.broadcast_to(
            np.uint8(place * 0 + 100)[:, None, None], (steps + 1, 32, 32, 3)
        ).copy()
    return episode_of(observation, action, place[1:, 0], spec)


class Knowing:
    """A model that has understood `walk`: its state is the place, and there is no noise in it."""

    encoder = SimpleNamespace(image_keys=[], vector_keys=["place"])
    settings = SimpleNamespace(pixels="scaled")

    def __init__(self) -> None:
        self.rssm = self
        self.noise_size = 1
        self.firsts: list[torch.Tensor] = []

    def draw_pixels(self, lead, generator, device):
        return {}

    def encode(self, observation, noise):
        return observation["place"]

    def observe(self, embed, action, is_first, noise):
        self.firsts.append(is_first)
        return State(embed, embed * 0), None

    def imagine(self, state, actions, noise):
        place = state.deter[:, None] + actions.cumsum(1)
        return State(place, place * 0)

    def decode(self, state):
        return {"place": symlog(state.deter)}

    def predict_reward(self, state):
        return state.deter[..., 0]


Knowing.settings = SimpleNamespace(**vars(Knowing.settings), **RSSMSettings().model_dump())


def test_a_knowing_model_is_right_at_every_horizon_and_wrong_with_the_actions_of_others():
    rng = np.random.default_rng(0)
    episodes = [walk(30, rng) for _ in range(4)]
    model = Knowing()
    errors = errors_of(model, episodes, (9, 1, 4), context=3)
    assert errors["horizons"] == [1, 4, 9]
    assert errors["starts"] == [4 * 20] * 3
    assert np.allclose(errors["vector_error"], 0, atol=1e-10)
    assert np.allclose(errors["reward_error"], 0, atol=1e-10)
    for row in (
        "vector_copy_last",
        "vector_mean_frame",
        "vector_shuffled_actions",
        "reward_shuffled_actions",
    ):
        assert min(errors[row]) > 0.01
    assert errors["vector_copy_last"] == sorted(errors["vector_copy_last"])
    assert errors["image_error"] is None and errors["image_mean_frame"] is None
    for first in model.firsts:  # every context begins afresh
        assert first[:, 0].all() and not first[:, 1:].any()


@pytest.mark.parametrize(("pixels", "level"), [("quantised", 1 / 32), ("scaled", 8 / 255)])
def test_baselines_of_a_fading_picture_are_those_computed_by_hand(pixels, level):
    frames, context, horizons = 32, 4, (1, 7, 20)
    errors = errors_of(
        model_for(PIXELS, f"model.pixels={pixels}"), [fading(frames)] * 2, horizons, context
    )
    places = np.arange(frames - context - 20 + 1) + context - 1  # last observed frames: 9 starts
    assert errors["starts"] == [2 * len(places)] * 3
    middle, mean_reward = (frames - 1) / 2, frames / 2
    for index, horizon in enumerate(horizons):
        assert errors["image_copy_last"][index] == pytest.approx((horizon * level) ** 2, rel=1e-4)
        away = ((places + horizon - middle) * level) ** 2
        assert errors["image_mean_frame"][index] == pytest.approx(away.mean(), rel=1e-4)
        assert errors["reward_mean"][index] == pytest.approx(
            ((places + horizon - mean_reward) ** 2).mean()
        )
    assert errors["vector_error"] is None


@pytest.mark.parametrize("spec", [PIXELS, VECTORS, BOTH], ids=["pixels", "vectors", "both"])
@pytest.mark.parametrize(
    "latent", [("rssm.latent=gaussian",), ("rssm.latent=categorical", "rssm.plan_by=mode")]
)
def test_every_observation_and_latent_is_measured_the_same_twice(spec, latent):
    rng = np.random.default_rng(1)
    episodes = [walk(12, rng, BOTH) for _ in range(3)]
    model = model_for(spec, *latent)
    errors = errors_of(model, episodes, (1, 5), 2)
    assert errors == errors_of(model, episodes, (1, 5), 2)
    kinds = {key: "image" if key == "image" else "vector" for key in spec.observation}
    for kind in ("image", "vector"):
        assert (errors[f"{kind}_error"] is not None) is (kind in kinds.values())
    assert all(np.isfinite(value).all() for value in errors.values() if value is not None)
    assert not any(parameter.requires_grad is False for parameter in model.parameters())


def test_short_episodes_count_at_the_horizons_that_they_reach():
    rng = np.random.default_rng(2)
    episodes = [walk(30, rng), walk(7, rng), walk(3, rng)]  # 31, 8 and 4 frames
    errors = errors_of(Knowing(), episodes, (1, 5, 20, 27, 50), context=4, starts=6)
    assert errors["horizons"] == [1, 5, 20, 27]  # 4 + 27 frames: the longest just has it
    assert errors["starts"] == [
        2,
        1,
        1,
        1,
    ]  # with 27 ahead there is one start in each; the shortest has none
    assert np.allclose(errors["vector_error"], 0, atol=1e-10)


@pytest.mark.parametrize(
    ("steps", "context", "line"),
    [
        ([20], 5, "at least 2 are needed"),
        ([3, 4], 5, "at most 5 frames: too short for a context of 5"),
        ([], 5, "2"),
    ],
)
def test_too_little_to_measure_is_refused(steps, context, line):
    rng = np.random.default_rng(3)
    with pytest.raises(PlanetError, match=line):
        errors_of(Knowing(), [walk(count, rng) for count in steps], (1, 5), context)


def test_a_model_that_has_learned_beats_the_last_frame_and_needs_its_actions():
    torch.set_num_threads(1)
    rng = np.random.default_rng(4)
    overrides = """
        rssm.deter=32 rssm.stoch=4 rssm.hidden=32 model.vector_units=32 model.reward_units=32
        kl.free_nats=0.5 optimizer.lr=3e-3 model.vector_scale=100
    """
    settings = config.load("planet", overrides.split())
    model = untrained_model(settings, VECTORS)
    learner = Learner(model, settings, CPU)
    for index in range(250):
        batch = [walk(11, rng) for _ in range(16)]
        stacked = {name: np.stack([getattr(episode, name) for episode in batch])
                   for name in ("action", "reward", "is_first", "is_terminal")}  # fmt: skip
        place = np.stack([episode.observation["place"] for episode in batch])
        learner.update(
            Chunks({"place": place}, **stacked, mask=np.ones(place.shape[:2], bool)), index
        )
    errors = errors_of(model, [walk(11, rng) for _ in range(40)], (1, 5), 3)
    for at in range(2):
        for row in ("copy_last", "mean_frame", "shuffled_actions"):
            assert errors["vector_error"][at] < 0.7 * errors[f"vector_{row}"][at], row
        assert errors["reward_error"][at] < errors["reward_mean"][at]


def errors_of(*args, **options) -> dict:
    return dream_errors(*args, **options).to_json()


class Doubting(Knowing):
    """One that sees its states through unit noise."""

    def imagine(self, state, actions, noise):
        place = super().imagine(state, actions, noise).deter + noise
        return State(place, place * 0)


def test_a_sample_is_off_by_its_noise_and_the_mean_of_many_by_less():
    rng = np.random.default_rng(5)
    episodes = [walk(40, rng) for _ in range(4)]
    one, many = (errors_of(Doubting(), episodes, (1, 10), samples=count) for count in (1, 16))
    assert one["reward_error"] == pytest.approx([1, 1], rel=0.5)  # 80 squares of unit normals each
    assert many["reward_error"] == pytest.approx([1 / 16, 1 / 16], rel=0.5)
    assert one["vector_copy_last"] == many["vector_copy_last"]


def test_frames_are_the_truth_and_what_was_imagined():
    episodes = [fading(12), fading(32), fading(31), fading(30), fading(20)]
    frames = dream_frames(model_for(PIXELS), episodes, horizon=25, context=5, device=CPU, rows=2)
    # of the three that are long enough
    assert frames.truth.shape == frames.prediction.shape == (2, 30, 32, 32, 3)
    assert frames.context == 5
    np.testing.assert_allclose(
        frames.truth[:, :, 0, 0, 0], np.tile((np.arange(30) + 0.5) / 32, (2, 1)), atol=1e-6
    )
    assert 0 <= frames.prediction.min() and frames.prediction.max() <= 1
