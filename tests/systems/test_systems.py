"""Each system of configs/systems trains, plans, and has what it names."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import planet_rssm
from planet_rssm import (
    Agent,
    Batch,
    Episode,
    State,
    TwohotEncoder,
    config,
    kl_balanced_loss,
    symlog,
)
from planet_rssm.base.device import generator
from planet_rssm.cli.main import main
from planet_rssm.config import Settings
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner, to_batch
from planet_rssm.training.player import simple_player
from planet_rssm.training.record import write_episodes
from planet_rssm.world_model import WorldModel, untrained_model
from planet_rssm.world_model.latents import Categorical, Gaussian
from planet_rssm.world_model.losses import free_mean, kl_terms

CPU = torch.device("cpu")
DREAMER_V2, GAUSSIAN, RL4BURN, PYTORCH_V3, MATHEMATICS = SYSTEMS = [
    f"systems/{name}"
    for name in (
        "dreamer-v2-rssm",
        "gaussian-rssm-guide",
        "rl4burn-v3-rssm",
        "dreamer-v3-pytorch",
        "rssm-mathematics",
    )
]
ENV = ["env.size=32", "env.renderer=raycast", "env.action_repeat=5", "env.observe=both"]
ENV += ["env.time_limit=100"]
SHRUNK = """
    rssm.deter=32 rssm.stoch=4 rssm.classes=5 rssm.hidden=16 model.depth=2 model.vector_units=16
    model.reward_units=16
    model.continue_units=16 behavior.units=16 behavior.horizon=3 planner.candidates=8
    planner.iterations=2
    planner.elites=2 planner.horizon=3
    train.batch_size=4 train.batch_length=8 train.updates=5 train.offline_updates=5 device=cpu
""".split()
B, T, A = 3, 6, 2
SPEC = EnvSpec(
    "gym/Test-v0",
    {"image": ((32, 32, 3), "uint8"), "left": ((32, 32, 3), "uint8"), "speed": ((3,), "float32")},
    A, 1, 0.1, 100, "own", "fake 0", terminates=True,
)  # fmt: skip
INFO = {"env": SPEC.to_json(), "seed": 0, "env_steps": T - 1}
VECTORS = dataclasses.replace(SPEC, observation={"speed": ((3,), "float32")})


def small(preset: str, *overrides: str) -> Settings:
    return config.load(preset, [*SHRUNK, *overrides])


def model_of(preset: str, *overrides: str, spec: EnvSpec = VECTORS) -> WorldModel:
    return untrained_model(small(preset, *overrides), spec)


def batch_for(spec: EnvSpec, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    draw = {
        "uint8": lambda s: rng.integers(0, 256, s, np.uint8),
        "float32": lambda s: rng.normal(size=s),
    }
    observation = {
        key: torch.as_tensor(draw[kind]((B, T, *shape)))
        for key, (shape, kind) in spec.observation.items()
    }
    observation = {
        key: value if value.dtype == torch.uint8 else value.float()
        for key, value in observation.items()
    }
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    action, reward = (
        torch.as_tensor(rng.normal(size=(B, T, A))).float(),
        torch.as_tensor(rng.normal(size=(B, T))),
    )
    return Batch(
        observation, action, reward.float(), first, torch.zeros_like(first), torch.ones_like(first)
    )


def noise_for(model: WorldModel, seed: int = 0) -> object:
    return model.draw(B, T, generator(seed, CPU), CPU)


def flat(model: WorldModel, rows: int = B) -> tuple[State, Tensor, Tensor, Tensor]:
    """A state, an action, an embedding, and normal noise."""
    rng = generator(1, CPU)
    rssm, embed_size = model.rssm, model.encoder.embed_size
    sizes = (rssm.deter_size, rssm.stoch_size, A, embed_size, rssm.noise_size)
    deter, stoch, action, embed, noise = (torch.randn(rows, size, generator=rng) for size in sizes)
    return State(deter, stoch), action, embed, noise


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> Path:
    """Two random episodes of 21 frames, ray cast, with vectors beside the pixels."""
    folder = tmp_path_factory.mktemp("set") / "random"
    write_episodes(folder, simple_player("dmc/cartpole-swingup", ENV, "random", 0), 2, 0, 2)
    return folder


def test_every_system_has_a_preset() -> None:
    assert sorted(SYSTEMS) == [name for name in config.presets() if name.startswith("systems/")]


@pytest.mark.parametrize("preset", SYSTEMS)
def test_it_is_trained_and_planned_with(preset: str, episodes: Path, tmp_path: Path) -> None:
    words = [word for setting in SHRUNK for word in ("-s", setting)]
    main(
        [
            "train",
            preset,
            "--offline",
            "--data",
            str(episodes),
            "--run-dir",
            str(tmp_path / "run"),
            *words,
        ]
    )
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["updates"] == 5 and line["loss/image"] > 0 and line["loss/vector"] > 0
    assert ("loss/actor" in line) == (preset in (PYTORCH_V3, MATHEMATICS))
    agent = Agent.load(tmp_path / "run", device="cpu")
    batch = to_batch(Replay(episodes, 10**6).sample(np.random.default_rng(0), 2, 3), CPU)
    observation = {key: value[:, 0] for key, value in batch.observation.items()}
    plan, _ = agent.act(agent.initial(2), observation, batch.action[:, 0], batch.is_first[:, 0])
    assert plan.action.shape == (2, 1) and (plan.action.abs() <= 1).all()


# -- the DreamerV2 RSSM module


def test_dreamer_v2_rssm_has_its_sizes_and_a_zero_start() -> None:
    s = config.load(DREAMER_V2).rssm
    assert (s.latent, s.deter, s.stoch, s.classes, s.cell, s.blocks) == (
        "categorical",
        1024,
        32,
        32,
        "gru",
        0,
    )
    rssm = model_of(DREAMER_V2).rssm
    assert isinstance(rssm.core.cell, torch.nn.GRUCell)
    assert not any(part.any() for part in rssm.initial_state(2))


def test_one_observed_step_gives_h_z_and_a_kl_loss_and_the_prior_is_imagined_from() -> None:
    rssm, (state, action, embed, noise) = (model := model_of(DREAMER_V2)).rssm, flat(model)
    (h, z), posterior = rssm.observe_step(
        state, action, embed, torch.zeros(B, dtype=torch.bool), noise
    )
    kl = kl_balanced_loss(rssm.latent, posterior, rssm.prior(h), free_nats=0.0, dyn=0.8, rep=0.2)
    assert (h.shape, z.shape, kl.shape) == ((B, 32), (B, 4 * 5), (B,))
    assert (kl > 0).all()
    assert rssm.imagine(State(h, z), action[:, None], noise[:, None]).stoch.shape == (B, 1, 20)


def test_the_balance_of_dreamer_v2_puts_four_fifths_on_the_prior() -> None:
    """KL(post || prior) has the gradient of the two halves in each argument; the prior gets 0.8."""
    settings, latent = small(DREAMER_V2).kl, model_of(DREAMER_V2).rssm.latent
    rng = generator(0, CPU)
    raw = [torch.randn(B, T, 20, generator=rng, requires_grad=True) for _ in range(2)]
    posterior, prior = map(latent.params, raw)
    both = torch.autograd.grad(latent.kl(posterior, prior).mean(), raw, retain_graph=True)
    mask = torch.ones(B, T, dtype=torch.bool)
    terms = [
        weight * free_mean(kl, mask, settings)
        for weight, kl in kl_terms(latent, posterior, prior, settings)
    ]
    shared = torch.autograd.grad(torch.stack(terms).sum(), raw)
    torch.testing.assert_close(shared[0], 0.2 * both[0])
    torch.testing.assert_close(shared[1], 0.8 * both[1])


def test_latent_overshooting_is_a_setting_and_trains_the_prior() -> None:
    model = model_of(DREAMER_V2, "kl.overshooting=3")
    metrics = model.loss(batch_for(VECTORS), noise_for(model)).metrics
    assert metrics["loss/overshooting"] > 0
    model = model_of(DREAMER_V2)
    assert "loss/overshooting" not in model.loss(batch_for(VECTORS), noise_for(model)).metrics


# -- the Gaussian RSSM guide


def test_the_guides_planet_and_dreamer_are_presets() -> None:
    s, dreamer = config.load(GAUSSIAN), config.load("dreamer-v1")
    assert (s.rssm.latent, s.rssm.stoch, s.rssm.deter, s.rssm.hidden, s.rssm.min_std) == (
        "gaussian",
        30,
        200,
        200,
        0.1,
    )
    p = s.planner
    assert (p.name, p.horizon, p.candidates, p.elites, s.optimizer.lr) == (
        "cem",
        12,
        1000,
        100,
        6e-4,
    )
    assert (dreamer.rssm, dreamer.optimizer.lr) == (s.rssm.model_copy(update={"act": "elu"}), 6e-4)
    assert (dreamer.behavior.lr, dreamer.behavior.horizon, dreamer.planner.name) == (
        8e-5,
        15,
        "actor",
    )


@pytest.mark.parametrize("overrides", [["kl.free_nats=0"], [], ["kl.form=balanced"]])
def test_every_kl_strategy_of_the_guide_is_a_setting(overrides: list[str]) -> None:
    model = model_of(GAUSSIAN, *overrides)
    assert model.loss(batch_for(VECTORS), noise_for(model)).metrics["loss/kl"] > 0


@pytest.mark.parametrize("preset", [GAUSSIAN, DREAMER_V2])
def test_balanced_kl_moves_prior_and_posterior(preset: str) -> None:
    settings, latent = small(preset, "kl.form=balanced").kl, model_of(preset).rssm.latent
    raw = [
        torch.randn(4, latent.raw_size, generator=generator(i, CPU), requires_grad=True)
        for i in range(2)
    ]
    terms = kl_terms(latent, *map(latent.params, raw), settings)
    to_posterior, to_prior = torch.autograd.grad(
        sum(weight * kl.sum() for weight, kl in terms), raw
    )
    assert to_posterior.any() and to_prior.any()


@pytest.mark.parametrize("preset", SYSTEMS)
def test_evaluation_mode_still_samples_for_filtering_and_planning(preset: str) -> None:
    model = model_of(preset).eval()
    state, action, embed, noise = flat(model)
    first = torch.zeros(B, dtype=torch.bool)
    for step in (
        lambda noise: model.rssm.observe_step(state, action, embed, first, noise)[0].stoch,
        lambda noise: model.rssm.imagine_step(state, action, noise).stoch,
    ):
        drawn = torch.stack([step(noise * scale) for scale in (1, -2, 3)])
        assert (drawn != drawn[0]).any()
    assert (model.rssm.settings.filter_by, model.rssm.settings.plan_by) == (
        "sample",
        "sample",
    )  # `mode` is a setting


def test_free_bits_come_before_the_mean_over_time() -> None:
    """Of KLs of 0 and 6 with 3 free nats the mean is (3 + 6) / 2, not max(3, (0 + 6) / 2)."""
    kl, mask = torch.tensor([[0.0, 6.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert free_mean(kl, mask, config.load(GAUSSIAN).kl) == 4.5
    assert (
        free_mean(kl, mask, config.load("dreamer-v1").kl) == 3
    )  # as Dreamer's code has it: the mean first


@pytest.mark.parametrize("preset", SYSTEMS)
def test_the_action_that_led_to_a_step_is_what_that_step_takes(preset: str) -> None:
    """Taken after observation 2, it is at index 3 of the episode: it changes no state before 3."""
    model, rng = model_of(preset), np.random.default_rng(0)
    observation = {"speed": rng.normal(size=(T, 3)).astype(np.float32)}
    action = rng.uniform(-1, 1, (T - 1, A)).astype(np.float32)
    other = action.copy()
    other[2] *= -1
    noise = noise_for(model).latent[:1]
    states = []
    for actions in (action, other):
        episode = Episode.from_transitions(
            observation, actions, np.zeros(T - 1, np.float32), False, True, INFO
        )
        embed = model.encode({"speed": torch.as_tensor(observation["speed"])[None]}, {})
        first = torch.as_tensor(episode.is_first)[None]
        states.append(
            model.rssm.observe(embed, torch.as_tensor(episode.action)[None], first, noise)[0].deter[
                0
            ]
        )
    changed = (states[0] != states[1]).any(-1)
    assert changed.tolist() == [False] * 3 + [True] * 3


def test_padding_is_masked() -> None:
    model, batch = model_of(GAUSSIAN), batch_for(VECTORS)
    batch.mask[1, 3:] = False
    loss = model.loss(batch, noise_for(model)).total
    batch.observation["speed"][1, 3:] = 9.0
    batch.reward[1, 3:] = 9.0
    assert torch.equal(model.loss(batch, noise_for(model)).total, loss)


def test_single_observations_and_sequences_are_encoded_alike() -> None:
    model, batch = model_of(GAUSSIAN, "model.pixels=scaled", spec=SPEC), batch_for(SPEC)
    sequence = model.encode(batch.observation, {})
    one = model.encode({key: value[:, 2] for key, value in batch.observation.items()}, {})
    torch.testing.assert_close(sequence[:, 2], one)


# -- rl4burn's DreamerV3 RSSM


def test_rl4burn_has_its_sizes_and_blocks_that_zero_turns_off() -> None:
    s = config.load(RL4BURN).rssm
    assert (s.deter, s.stoch, s.classes, s.hidden, s.blocks, s.unimix) == (
        512,
        32,
        32,
        512,
        8,
        0.01,
    )
    assert model_of(RL4BURN).rssm.core.blocks == 8
    assert isinstance(model_of(RL4BURN, "rssm.blocks=0").rssm.core.cell, torch.nn.GRUCell)


def test_states_logits_and_heads_have_the_shapes_that_rl4burn_names() -> None:
    model = model_of(RL4BURN)
    state, action, embed, noise = flat(model)
    state, posterior = model.rssm.observe_step(
        state, action, embed, torch.zeros(B, dtype=torch.bool), noise
    )
    assert posterior.logits.shape == model.rssm.prior(state.deter).logits.shape == (B, 4, 5)
    feat = model.rssm.feat(model.rssm.imagine_step(state, action, noise))
    assert model.reward.raw(feat).shape == (B, 255)
    assert model.continue_head.raw(feat).shape == (B, 1)
    assert not model.reward(feat).any()  # untrained, exactly 0
    assert [part.shape for part in model.rssm.initial_state(B)] == [(B, 32), (B, 20)]


@pytest.mark.parametrize("preset", [DREAMER_V2, RL4BURN, PYTORCH_V3, MATHEMATICS])
def test_a_latent_is_a_sample_and_not_the_likeliest_class(preset: str) -> None:
    """20 000 draws of one variable: each class comes as often as its probability says."""
    latent = model_of(preset).rssm.latent
    params = latent.params(torch.tensor([[1.0, 0.5, 0.0, -0.5, -1.0] * 4]))
    noise = torch.randn(20_000, 4, generator=generator(0, CPU))
    drawn = latent.sample(Categorical(params.logits.expand(20_000, 4, 5)), noise)
    torch.testing.assert_close(drawn.mean(0), params.logits.exp().flatten(), atol=0.02, rtol=0)


@pytest.mark.parametrize("preset", [RL4BURN, PYTORCH_V3, MATHEMATICS])
def test_the_uniform_share_is_in_samples_and_in_the_kl(preset: str) -> None:
    """Logits that exclude each other: without the share the KL would be in the hundreds."""
    latent = model_of(preset).rssm.latent
    sure, other = (latent.params(500 * torch.eye(5)[[k] * 4].reshape(1, 20)) for k in (0, 1))
    least = 0.01 / 5
    torch.testing.assert_close(sure.logits.exp().min(), torch.tensor(least))
    most = 1 - 0.01 + least
    expected = 4 * (most - least) * np.log(most / least)
    assert latent.kl(sure, other).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("preset", SYSTEMS)
def test_is_first_forgets_state_and_action(preset: str) -> None:
    model = model_of(preset)
    state, action, embed, noise = flat(model)
    first = torch.tensor([True, False, True])
    after, _ = model.rssm.observe_step(state, action, embed, first, noise)
    fresh = model.rssm.initial_state(B)
    expected, _ = model.rssm.observe_step(
        fresh, torch.zeros_like(action), embed, torch.zeros_like(first), noise
    )
    same = [(left == right).all(-1) for left, right in zip(after, expected, strict=True)]
    assert same[0].tolist() == first.tolist() and same[1][first].all()


# -- DreamerV3's world model in PyTorch


def test_the_presets_of_the_first_release_differ_as_their_code_does() -> None:
    """Its PyTorch code differs: vectors' networks, 15 states (14 returns), weights, entropy."""
    one, other = (config.flatten(config.load(name)) for name in (PYTORCH_V3, "dreamer-v3-2023"))
    assert {key: (one[key], other[key]) for key in one if one[key] != other[key]} == {
        "env.observe": ("both", "pixels"),
        "model.vector_layers": (5, 2),
        "model.vector_units": (1024, 512),
        "behavior.horizon": (14, 15),
        "behavior.weights": ("late", "reached"),
        "behavior.weigh_entropy": (False, True),
        "behavior.subtract_value": (True, False),
    }


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
@pytest.mark.parametrize("initial", ["zeros", "learned"])
def test_images_and_vectors_by_key_under_either_latent_and_start(latent: str, initial: str) -> None:
    switches = (
        f"rssm.latent={latent}",
        f"rssm.initial={initial}",
        "rssm.recurrent_depth=2",
        "kl.free_nats=0",
    )
    model, batch = (
        model_of(PYTORCH_V3, *switches, "rssm.mean=tanh5", "rssm.std=softplus", spec=SPEC),
        batch_for(SPEC),
    )
    assert isinstance(
        model.rssm.prior(torch.zeros(1, 32)),
        {"gaussian": Gaussian, "categorical": Categorical}[latent],
    )
    loss, metrics, _ = model.loss(batch, noise_for(model))
    assert {
        f"loss/{name}" for name in ("image", "vector", "reward", "continue", "kl", "total")
    } <= set(metrics)
    assert {"kl", "entropy/prior", "entropy/posterior"} <= set(metrics)
    decoded = model.decode(
        State(*(part[0] for part in model.loss(batch, noise_for(model)).context.states))
    )
    assert {key: value.shape[1:] for key, value in decoded.items()} == {
        k: s for k, (s, _) in SPEC.observation.items()
    }
    model.reward.net[-1].weight.data.fill_(0.01)  # at 0 it lets no gradient through
    loss = model.loss(batch, noise_for(model)).total
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.isfinite().all() and gradient.any()


def test_means_may_be_bounded() -> None:
    latent = model_of(PYTORCH_V3, "rssm.latent=gaussian", "rssm.mean=tanh5").rssm.latent
    mean, std = latent.params(torch.tensor([[100.0, -100.0, 5.0, 0.0] + [0.0] * 4]))
    torch.testing.assert_close(mean, torch.tensor([[5.0, -5.0, 5 * np.tanh(1.0), 0.0]]).float())
    torch.testing.assert_close(std, torch.full((1, 4), 1.1))  # sigmoid2 of 0, and min_std


def test_rewards_are_gaussian_or_two_hot_in_symlog_space() -> None:
    encoder = TwohotEncoder(space="symlog")
    values = torch.tensor([0.0, 1.0, -3.0, 250.0])
    weights = encoder.encode(values)
    assert weights.shape == (4, 255) and ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close((weights * encoder.bins.float()).sum(-1), symlog(values))
    torch.testing.assert_close(encoder.decode(weights.clamp(min=1e-30).log()), values)
    assert encoder.decode(torch.zeros(255)) == 0
    assert not hasattr(model_of(PYTORCH_V3, "model.reward=gaussian").reward, "encoder")


def test_grad_heads_say_which_heads_train_the_latent() -> None:
    def reached(*overrides: str) -> bool:
        alone = (
            "kl.scale=0",
            "model.image_scale=0",
            "model.vector_scale=0",
            "model.continue_scale=0",
        )
        model = model_of(PYTORCH_V3, "model.reward_outscale=1", *alone, *overrides, spec=SPEC)
        loss = model.loss(batch_for(SPEC), noise_for(model)).total
        return bool(torch.autograd.grad(loss, model.rssm.posterior_net[0].weight)[0].any())

    assert reached() and not reached("model.grad_heads=[image,vector,continue]")


def test_the_kl_of_the_first_release_is_half_dyn_and_a_tenth_rep_each_free_below_a_nat() -> None:
    settings = config.load(PYTORCH_V3).kl
    assert (settings.dyn, settings.rep, settings.free_nats, settings.free) == (
        0.5,
        0.1,
        1.0,
        "step",
    )
    model = model_of(PYTORCH_V3, "kl.free_nats=1000")
    assert model.loss(batch_for(VECTORS), noise_for(model)).metrics[
        "loss/kl"
    ].item() == pytest.approx(600)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_it_learns_in_mixed_precision_with_clipping_and_weight_decay(
    precision: str, episodes: Path
) -> None:
    overrides = (f"train.precision={precision}", "optimizer.clip=1", "optimizer.weight_decay=1e-4")
    settings, replay = small(PYTORCH_V3, *overrides, "env.observe=both"), Replay(episodes, 10**6)
    learner = Learner(untrained_model(settings, EnvSpec.from_json(replay.env)), settings, CPU)
    updates = [learner.update(replay.sample(np.random.default_rng(i), 4, 8), i) for i in range(10)]
    assert np.isfinite(
        updates[-1]["loss/total"]
    )  # in float16 the first are skipped, until the scale is low enough


def test_the_loss_hands_its_context_on_to_behaviour() -> None:
    model, batch = model_of(PYTORCH_V3), batch_for(VECTORS)
    noise = noise_for(model)
    context = model.loss(batch, noise).context
    assert model.rssm.feat(context.states).shape == (B, T, model.rssm.feat_size)
    assert context.embed.shape == (B, T, model.encoder.embed_size)
    assert model.rssm.latent.entropy(context.posterior).shape == (B, T)
    for part, same in zip(context.states, model.loss(batch, noise).context.states, strict=True):
        assert torch.equal(part, same)


# -- the mathematics


def test_straight_through_takes_a_samples_class_and_the_probabilities_gradient() -> None:
    latent = model_of(MATHEMATICS).rssm.latent
    raw = torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0] * 4], requires_grad=True)
    sample = latent.sample(
        latent.params(raw), torch.full((1, 4), 3.0)
    )  # far in the tail: the last class
    assert sample.detach().reshape(4, 5).argmax(-1).tolist() == [4] * 4
    weights = torch.randn(20, generator=generator(0, CPU))
    [through] = torch.autograd.grad((sample * weights).sum(), raw)
    [expected] = torch.autograd.grad(
        (latent.params(raw).logits.exp().flatten() * weights).sum(), raw
    )
    torch.testing.assert_close(through, expected)


def test_free_bits_stop_the_gradient_below_them_and_only_there() -> None:
    latent, settings = model_of(MATHEMATICS).rssm.latent, small(MATHEMATICS).kl
    mask = torch.ones(1, 1, dtype=torch.bool)
    for apart, moves in ((0.01, False), (3.0, True)):
        raw = torch.zeros(1, 1, 20, requires_grad=True)
        posterior = latent.params(apart * torch.arange(20.0).reshape(1, 1, 20))
        terms = kl_terms(latent, posterior, latent.params(raw), settings)
        loss = sum(weight * free_mean(kl, mask, settings) for weight, kl in terms)
        assert bool(torch.autograd.grad(loss, raw)[0].any()) == moves
        assert moves or loss.item() == pytest.approx(0.6)


def test_the_total_loss_is_the_bound_with_reward_and_continuation() -> None:
    model, batch = model_of(MATHEMATICS), batch_for(VECTORS)
    loss, metrics, _ = model.loss(batch, noise_for(model))
    parts = [metrics[f"loss/{name}"] for name in ("vector", "reward", "continue", "kl")]
    torch.testing.assert_close(loss, torch.stack(parts).sum())


def test_names_that_people_look_for_are_public() -> None:
    for name in (
        "RSSM",
        "TwohotEncoder",
        "symlog",
        "symexp",
        "kl_balanced_loss",
        "Context",
        "Latent",
    ):
        assert name in planet_rssm.__all__
