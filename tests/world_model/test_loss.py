"""The complete loss: padding, who learns from which head, and the numbers that it reports."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import HEADS, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch
from planet_rssm.world_model import WorldModel

PRESETS = ["planet", "planet-discrete", "dreamer-v1", "dreamer-v2", "dreamer-v3"]
Build = Callable[..., WorldModel]
ALL = {"loss/image", "loss/vector", "loss/reward", "loss/continue", "loss/kl", "loss/overshooting"}


def gradients(model: WorldModel, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(
        torch.autograd.grad(
            loss, list(model.parameters()), allow_unused=True, materialize_grads=True
        )
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_padded_steps_contribute_nothing(
    preset: str, fraction: float, model: Build, batch: Batch, noise: Callable
) -> None:
    """Whatever stands there, every loss, metric and gradient stays the same."""
    world = model(
        preset, "kl.overshooting=3", "kl.free_nats=0.01", f"model.decode_fraction={fraction}"
    )
    drawn = noise(world)
    loss, metrics, _ = world.loss(batch, drawn)
    assert metrics.keys() >= ALL
    before = gradients(world, loss)
    padding = ~batch.mask
    for value in (batch.action, batch.reward, batch.observation["speed"]):
        value[padding] = 1e3
    batch.observation["image"][padding] = 255
    batch.is_terminal[padding] = True
    again, changed, _ = world.loss(batch, drawn)
    for name, value in metrics.items():
        torch.testing.assert_close(value, changed[name], rtol=1e-6, atol=1e-6, msg=name)
    torch.testing.assert_close(before, gradients(world, again), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_real_steps_do_contribute(preset: str, model: Build, batch: Batch, noise: Callable) -> None:
    """The other way round: a change of one unpadded step changes the term that it belongs to."""
    world = model(preset)
    drawn = noise(world)
    before = world.loss(batch, drawn).metrics
    batch.observation["image"][1, 2] += 100
    batch.observation["speed"][1, 2] += 1
    batch.reward[1, 2] += 1
    batch.is_terminal[1, 2] = True
    after = world.loss(batch, drawn).metrics
    for name in ALL & before.keys() - {"loss/kl"}:
        assert before[name] != after[name], name


@pytest.mark.parametrize("preset", PRESETS)
def test_metrics_reuse_what_the_loss_computed(
    preset: str, model: Build, batch: Batch, noise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = model(preset)
    calls = []
    for name, head in {"reward": world.reward, "continue": world.continue_head}.items():
        head.net.register_forward_hook(lambda *_, name=name: calls.append(name))
    latent, kl = world.rssm.latent, world.rssm.latent.kl
    monkeypatch.setattr(latent, "kl", lambda *params: calls.append("kl") or kl(*params))
    world.loss(batch, noise(world))
    assert calls == ["reward", "continue"] + ["kl"] * (2 if world.kl.form == "balanced" else 1)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_left_out_learns_without_teaching(
    head: str, model: Build, batch: Batch, noise: Callable
) -> None:
    kept = [name for name in HEADS if name != head]
    for name in HEADS:
        others = [f"model.{other}_scale=0" for other in HEADS if other != name]
        grad_heads = f"model.grad_heads=[{','.join(kept)}]"
        world = model("dreamer-v1", grad_heads, "kl.scale=0", *others)
        heads = {
            "image": world.decoder.images,
            "vector": world.decoder.vectors,
            "reward": world.reward,
            "continue": world.continue_head,
        }
        world.loss(batch, noise(world)).total.backward()
        assert all(parameter.grad.any() for parameter in heads[name].parameters())
        reached = [p.grad is not None and p.grad.any() for p in world.encoder.parameters()]
        assert any(reached) == all(reached) == (name != head), name
        assert any(p.grad is not None and p.grad.any() for p in world.rssm.parameters()) == (
            name != head
        ), name


def test_without_any_head_only_the_kl_teaches(model: Build, batch: Batch, noise: Callable) -> None:
    world = model("dreamer-v1", "model.grad_heads=[]", "kl.scale=0")
    world.loss(batch, noise(world)).total.backward()
    for part in (world.encoder, world.rssm):
        assert not any(p.grad is not None and p.grad.any() for p in part.parameters())
    for part in (world.decoder, world.reward, world.continue_head):
        assert all(p.grad.any() for p in part.parameters())


@pytest.mark.parametrize(
    ("keys", "terminates", "heads", "line"),
    [
        (
            ["speed"],
            True,
            "[image,reward]",
            "names 'image': gym/Test-v0 has only vector, reward, continue; take it out",
        ),
        (
            ["image"],
            True,
            "[vector]",
            "names 'vector': gym/Test-v0 has only image, reward, continue; take it out",
        ),
        (
            ["image"],
            False,
            "[continue]",
            "names 'continue': gym/Test-v0 has only image, reward; take it out",
        ),
    ],
)
def test_a_head_with_nothing_to_predict_is_one_line(
    keys: list[str],
    terminates: bool,
    heads: str,
    line: str,
    small: Callable[..., Settings],
    spec: Callable[..., EnvSpec],
) -> None:
    with pytest.raises(PlanetError, match=f"^model.grad_heads {line}$"):
        WorldModel(small("planet", f"model.grad_heads={heads}"), spec(*keys, terminates=terminates))
    WorldModel(
        small("planet"), spec(*keys, terminates=terminates)
    )  # the default names all heads everywhere


@pytest.mark.parametrize("preset", PRESETS)
def test_metrics_are_there_and_agree_with_each_other(
    preset: str, model: Build, batch: Batch, noise: Callable
) -> None:
    world = model(preset, "kl.overshooting=2")
    loss, metrics, _ = world.loss(batch, noise(world))
    names = {"kl", "kl/clipped", "entropy/prior", "entropy/posterior"} | ALL
    names |= {
        f"{name}/{what}"
        for name in ("reward", "continue")
        for what in ("predicted", "real", "error")
    }
    if world.rssm.settings.latent == "categorical":
        names |= {"perplexity/prior", "perplexity/posterior"}
    assert metrics.keys() == names | {"loss/total"}
    assert all(
        value.ndim == 0 and value.isfinite() and not value.requires_grad
        for value in metrics.values()
    )
    assert metrics["loss/total"] == loss.detach()
    torch.testing.assert_close(sum(metrics[name] for name in ALL), loss.detach())
    assert metrics["kl/clipped"] >= max(metrics["kl"], world.kl.free_nats) - 1e-6
    weight = world.kl.dyn + world.kl.rep if world.kl.form == "balanced" else 1.0
    torch.testing.assert_close(metrics["loss/kl"], weight * metrics["kl/clipped"])
    torch.testing.assert_close(metrics["reward/real"], batch.reward[batch.mask].mean())
    assert metrics["continue/real"].item() == pytest.approx(
        world.settings.continue_discount * 12 / 13
    )  # 1 end in 13
    for name in ("reward", "continue"):
        apart = (metrics[f"{name}/predicted"] - metrics[f"{name}/real"]).abs()
        assert metrics[f"{name}/error"] >= apart - 1e-6


def test_scales_weigh_each_term(model: Build, batch: Batch, noise: Callable) -> None:
    ones = [f"model.{name}_scale=1" for name in HEADS] + ["kl.overshooting=2"]
    plain, other = model("dreamer-v1", *ones), model(
        "dreamer-v1", *(f"model.{name}_scale={i + 2}" for i, name in enumerate(HEADS)),
        "kl.scale=7", "kl.overshooting=2", "kl.overshooting_scale=0.5",
    )  # fmt: skip
    before, after = plain.loss(batch, noise(plain)).metrics, other.loss(batch, noise(plain)).metrics
    factors = {f"loss/{name}": i + 2 for i, name in enumerate(HEADS)} | {
        "loss/kl": 7,
        "loss/overshooting": 0.5,
    }
    for name, factor in factors.items():
        torch.testing.assert_close(after[name], factor * before[name])


def test_a_spec_is_not_changed_by_its_model(
    small: Callable[..., Settings], spec: Callable[..., EnvSpec]
) -> None:
    asked = spec()
    before = dataclasses.replace(asked, observation=dict(asked.observation))
    WorldModel(small("dreamer-v3"), asked)
    assert asked == before
