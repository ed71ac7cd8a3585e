"""The complete model: sizes, masks, partial decoding, and a loss that falls."""

import dataclasses
import math

import pytest
import torch

from planet_rssm import config
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch, State
from planet_rssm.world_model import LossNoise, ModelDynamics, WorldModel, untrained_model
from planet_rssm.world_model.model import uniform_bytes
from planet_rssm.world_model.observations import preprocess

CPU = torch.device("cpu")
SMALL = [
    "env.size=32",
    "model.depth=2",
    "rssm.deter=16",
    "rssm.stoch=4",
    "rssm.hidden=16",
    "model.reward_units=16",
]
B, T, A = 4, 5, 2


def small(*overrides: str) -> Settings:
    return config.load("planet", [*SMALL, *overrides])


def spec_of(size: int = 32, actions: int = A, **others: tuple[tuple[int, ...], str]) -> EnvSpec:
    observation = {"image": ((size, size, 3), "uint8"), **others}
    return EnvSpec("dmc/test-task", observation, actions, 2, 0.04, 1000, "raycast", "mujoco 3.17.0")


def batch_of(size: int = 32, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    shades = torch.randint(0, 256, (B, T, 1, 1, 3), generator=rng, dtype=torch.uint8)
    image = shades.expand(B, T, size, size, 3).clone()  # one colour a frame: small, and learnable
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    reward, action = torch.rand(B, T, generator=rng), torch.randn(B, T, A, generator=rng)
    return Batch(
        {"image": image}, action, reward, first, torch.zeros_like(first), torch.ones_like(first)
    )


def draw(model: WorldModel, seed: int = 0) -> LossNoise:
    return model.draw(B, T, torch.Generator().manual_seed(seed), CPU)


def test_quickstart_has_at_most_a_million_parameters() -> None:
    with torch.device("meta"):
        assert (
            WorldModel(config.load("quickstart"), spec_of(32, actions=1)).parameter_counts()[
                "total"
            ]
            <= 1_000_000
        )


@pytest.mark.parametrize("size", [16, 32, 47, 48, 64, 84, 96, 128, 256])
def test_images_of_every_size_go_in_and_come_out(size: int) -> None:
    model = untrained_model(small(), spec_of(size))
    image = torch.zeros(2, 3, size, size, 3, dtype=torch.uint8)
    noise = model.draw_pixels((2, 3), torch.Generator(), CPU)
    assert model.encode({"image": image}, noise).shape[:2] == (2, 3)
    assert model.decode(State(torch.zeros(2, 16), torch.zeros(2, 4)))["image"].shape == (
        2,
        size,
        size,
        3,
    )


def test_preprocessing_keeps_five_bits_and_fills_their_cells() -> None:
    """floor(x / 8) / 32 + U(0, 1/32) - 0.5."""
    observation = {"image": torch.tensor([0, 7, 8, 255], dtype=torch.uint8)}
    low = preprocess(observation, {"image": torch.zeros(4)})["image"]
    torch.testing.assert_close(low, torch.tensor([0, 0, 1 / 32, 31 / 32]) - 0.5)
    middle = preprocess(observation, {"image": torch.full((4,), 0.5)})["image"]
    torch.testing.assert_close(middle - low, torch.full((4,), 0.5 / 32))


def test_vectors_are_read_through_symlog() -> None:
    """sign(x) ln(|x| + 1)."""
    observation = preprocess({"vector": torch.tensor([0.0, math.e - 1, 1 - math.e**2])}, {})[
        "vector"
    ]
    torch.testing.assert_close(observation, torch.tensor([0.0, 1.0, -2.0]))


def test_any_mix_of_images_and_vectors_is_learned_from() -> None:
    spec = spec_of(left=((32, 32, 3), "uint8"), speed=((3,), "float32"), place=((2,), "float32"))
    model, batch = untrained_model(small("kl.free_nats=0"), spec), batch_of()
    left = batch.observation["image"].flip(2)
    vectors = {"speed": torch.randn(B, T, 3), "place": torch.randn(B, T, 2)}
    batch = batch._replace(observation={**batch.observation, "left": left, **vectors})
    loss, metrics, _ = model.loss(batch, draw(model))
    assert {"loss/image", "loss/vector", "loss/reward", "loss/kl"} < set(metrics)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    decoded = model.decode(State(torch.zeros(2, 16), torch.zeros(2, 4)))
    assert {key: value.shape[1:] for key, value in decoded.items()} == {
        key: torch.Size(shape) for key, (shape, _) in spec.observation.items()
    }


def test_vectors_alone_need_no_convolution() -> None:
    spec = EnvSpec("gym/Test-v0", {"vector": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0")
    model, batch = (
        untrained_model(small(), spec),
        batch_of()._replace(observation={"vector": torch.randn(B, T, 3)}),
    )
    assert not any(parameter.dim() == 4 for parameter in model.parameters())
    assert "loss/image" not in model.loss(batch, draw(model)).metrics


def test_where_episodes_end_by_themselves_their_ends_are_learned_and_planned_with() -> None:
    model, batch = (
        untrained_model(small(), dataclasses.replace(spec_of(), terminates=True)),
        batch_of(),
    )
    ends = batch.is_terminal.clone()
    ends[:2, -1] = True
    batch = batch._replace(is_terminal=ends)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(80):
        loss, metrics, _ = model.loss(batch, draw(model, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["loss/continue"] < 0.2  # guessing the share of ends, 1 in 10, costs 0.33
    dynamics = ModelDynamics(model)
    state = model.rssm.initial_state(1)
    rollout = dynamics.rollout(
        state, torch.zeros(1, 2, 3, A), torch.zeros(dynamics.noise_shape(1, 2, 3))
    )
    assert ((rollout.discount > 0) & (rollout.discount < 1)).all()


def test_untrained_models_are_equal_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, other = untrained_model(small(), spec_of()), untrained_model(small(), spec_of())
    assert torch.equal(before, torch.random.get_rng_state())
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_share_of_decoded_frames_estimates_the_loss_of_all() -> None:
    full, share = (
        untrained_model(small(), spec_of()),
        untrained_model(small("model.decode_fraction=0.25"), spec_of()),
    )
    batch = batch_of()
    expected = full.loss(batch, draw(full)).metrics["loss/image"]
    estimates = []
    for seed in range(40):
        noise = draw(share, seed)
        assert noise.frames.shape == (5,)
        estimates.append(
            share.loss(batch, draw(full)._replace(frames=noise.frames)).metrics["loss/image"]
        )
    torch.testing.assert_close(torch.stack(estimates).mean(), expected, rtol=0.02, atol=0)


def test_the_same_noise_gives_the_same_loss_and_the_loss_falls() -> None:
    settings = small("kl.form=balanced", "kl.free_nats=1")
    model, batch = untrained_model(settings, spec_of()), batch_of()
    assert torch.equal(model.loss(batch, draw(model)).total, model.loss(batch, draw(model)).total)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss, metrics, _ = model.loss(batch, draw(model, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((metrics["loss/image"].item(), metrics["loss/reward"].item()))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.5 * losses[0][1]


def test_dynamics_follow_the_rssm_candidate_by_candidate() -> None:
    model = untrained_model(small(), spec_of()).double()
    dynamics = ModelDynamics(model)
    rng = torch.Generator().manual_seed(0)
    state = State(
        torch.randn(2, 16, generator=rng).double(), torch.randn(2, 4, generator=rng).double()
    )
    actions = torch.randn(2, 3, 6, A, generator=rng).double()
    noise = torch.randn(dynamics.noise_shape(2, 3, 6), generator=rng).double()
    rollout = dynamics.rollout(state, actions, noise)
    assert rollout.reward.shape == rollout.discount.shape == (2, 3, 6)
    for b in range(2):
        for n in range(3):
            start = State(state.deter[b : b + 1], state.stoch[b : b + 1])
            states = model.rssm.imagine(start, actions[b, n][None], noise[b, n][None])
            torch.testing.assert_close(rollout.reward[b, n], model.predict_reward(states)[0])
            torch.testing.assert_close(rollout.last.deter[b, n], states.deter[0, -1])


def test_noise_of_bytes_is_uniform() -> None:
    drawn = uniform_bytes((33, 1001), torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.uint8 and drawn.shape == (33, 1001)
    for place in range(8):  # of a byte in the number that it was cut from
        counts = torch.bincount(drawn.flatten()[place::8].long(), minlength=256)
        assert len(counts) == 256 and abs(counts - counts.float().mean()).max() < 60
