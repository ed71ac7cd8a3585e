"""Checkpoints whose checksum is right and whose content is not: another's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from planet_rssm import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import _crc32

WEIGHT = "model/rssm.prior_net.0.weight"
MOMENT = "optimizer/rssm.prior_net.0.weight/exp_avg"


@pytest.fixture
def copy(peace: Path, tmp_path: Path) -> Path:
    """Return a run of three episodes that may be changed."""
    return shutil.copytree(peace, tmp_path / "run")


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change a checkpoint's header and tensors, and give it the checksum of what it holds now."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["planet_rssm"])
    tensors = safetensors.torch.load(data)
    del header["crc32"]
    change(header, tensors)
    header["crc32"] = _crc32(header, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"planet_rssm": json.dumps(header)}))


def setting(key: str, value: object) -> Callable[..., None]:
    return lambda header, tensors: header["settings"].update({key: value})


def progress(key: str, value: object) -> Callable[..., None]:
    return lambda header, tensors: header["progress"].update({key: value})


def tensor(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    return lambda header, tensors: tensors.update({key: change(tensors[key]).contiguous()})


def nan(value: torch.Tensor) -> torch.Tensor:
    return value.index_fill(0, torch.tensor([0]), torch.nan)


CRAFTED = {
    "settings of another type": (
        lambda h, t: h.update(settings=[1]),
        "another version of planet_rssm",
    ),
    "a setting of another type": (setting("rssm.deter", "many"), "rssm.deter = 'many'"),
    "a negative shape": (
        lambda h, t: h["spec"].update(observation={"image": [[-4, 3, 3], "uint8"]}),
        r"observation 'image' has shape \[-4, 3, 3\]",
    ),
    "no time": (lambda h, t: h["spec"].update(control_interval=0.0), "control_interval = 0;"),
    "nested without end": (
        setting("env.kwargs", {"a": json.loads("[" * 300 + "]" * 300)}),
        "nested more than 20 deep",
    ),
    "a page of text": (setting("rssm.latent", "x" * 10**6), r"x \.\.\. .*use that one"),
    "no settings": (lambda h, t: h.pop("settings"), "another version of planet_rssm"),
    "no progress": (lambda h, t: h.pop("progress"), "'progress'"),
    "a progress that is none": (
        lambda h, t: h.update(progress=7),
        "another version of planet_rssm",
    ),
    "absurd counts": (
        progress("episodes", 10**30),
        "progress episodes = 1000000000000000000000000000000",
    ),
    "a negative count": (progress("env_steps", -1), "progress env_steps = -1"),
    "a count that is text": (progress("updates", "6"), "progress updates = 6"),
    "another's name": (
        progress("env_steps", 600),
        "by its name it has 900 env_steps, by what it holds 600",
    ),
    "a tensor too many": (
        lambda h, t: t.update({"model/more": torch.ones(1)}),
        "makes? no place for, more",
    ),
    "a tensor too few": (
        lambda h, t: t.pop(WEIGHT),
        r"model lacks rssm.prior_net.0.weight \(1 such\)",
    ),
    "another shape": (
        tensor(WEIGHT, lambda w: w[:1]),
        r"prior_net.0.weight has shape \[1, 8\], its settings make",
    ),
    "another type": (
        tensor(WEIGHT, torch.Tensor.double),
        "prior_net.0.weight has type torch.float64",
    ),
    "weights that are not finite": (
        tensor(WEIGHT, nan),
        "model/rssm.prior_net.0.weight holds numbers that are not",
    ),
    "a group of no name": (
        lambda h, t: t.update({"other/x": torch.ones(1)}),
        "another version of planet_rssm",
    ),
    "a deter that fits nowhere": (setting("rssm.deter", 10**12), "takes at least"),
    "a hidden that fits nowhere": (setting("rssm.hidden", 10**12), "takes at least"),
    "a depth that fits nowhere": (setting("model.depth", 10**12), "takes at least"),
    "layers without end": (setting("rssm.prior_layers", 10**10), "rssm.prior_layers = 10000000000"),
    "candidates without end": (
        setting("planner.candidates", 10**10),
        "planner.candidates = 10000000000.*at least",
    ),
    "a horizon without end": (
        setting("planner.horizon", 10**12),
        "planner.horizon = 1000000000000.*: takes at least",
    ),
    "rounds of search without end": (
        setting("planner.iterations", 10**10),
        "planner.iterations = 10000000000",
    ),
    "actions without end": (lambda h, t: h["spec"].update(action_size=10**13), "takes at least"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_checkpoint_is_refused_in_one_line(copy: Path, case: str) -> None:
    change, line = CRAFTED[case]
    rewrite(location.find(copy), change)
    with pytest.raises(PlanetError, match=line) as caught:
        Agent.load(copy, device="cpu")
    assert (
        "\n" not in str(caught.value)
        and "0000000900.safetensors" in str(caught.value)
        or "planner" in line
    )


RESUMED = {
    "a count missing": (lambda h, t: h["progress"].pop("episodes"), "its progress lacks episodes"),
    "a count of another kind": (progress("episodes", 2.5), "its progress has episodes = 2.5"),
    "a count of another version": (progress("flights", 1), "its progress has flights"),
    "another meter": (progress("meter", {"loss": [1]}), "its progress has another meter"),
    "more rounds than were done": (
        progress("rounds", 10**12),
        "in 1000000000000 rounds, which these settings never",
    ),
    "more episodes than rounds": (progress("episodes", 12), "counts 12 episodes"),
    "a moment missing": (lambda h, t: t.pop(MOMENT), "some parameters have less of it"),
    "a moment of another shape": (
        tensor(MOMENT, lambda m: m[:2]),
        "optimiser's state: .*exp_avg is torch.float32",
    ),
    "a moment of nothing": (
        lambda h, t: t.update({"optimizer/x/exp_avg": torch.ones(2)}),
        "x/exp_avg is of no param",
    ),
    "a moment that is not finite": (
        tensor(MOMENT, nan),
        "exp_avg holds numbers that are not finite",
    ),
    "no moments": (
        lambda h, t: [t.pop(key) for key in list(t) if key.startswith("optimizer")],
        "state: there is none",
    ),
    "a tensor too few": (lambda h, t: t.pop(WEIGHT), "model lacks rssm.prior_net.0.weight"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_is_not_gone_on_with_from_a_crafted_checkpoint(copy: Path, train, case: str) -> None:
    change, line = RESUMED[case]
    rewrite(location.find(copy), change)
    before = {path: path.read_bytes() for path in (copy / "episodes").iterdir()}
    with pytest.raises(PlanetError, match=line) as caught:
        train(copy, "train.env_steps=1800")
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (copy / "episodes").iterdir()} == before


def test_two_checkpoints_that_were_exchanged_are_refused(copy: Path) -> None:
    first, second = location.numbered(copy)
    first.rename(copy / "aside")
    second.rename(first)
    (copy / "aside").rename(second)
    with pytest.raises(
        PlanetError,
        match="by its name it has 900 env_steps, by what it holds 600; call it 0000000600",
    ):
        Agent.load(copy, device="cpu")
    best = location.path_of(copy, location.BEST)
    other = next(path for path in (first, second) if path.read_bytes() != best.read_bytes())
    shutil.copy(other, best)
    with pytest.raises(PlanetError, match="best.safetensors: holds .* env_steps, the best had"):
        Agent.load(copy, "best", device="cpu")


def test_where_no_checkpoint_is_whole_the_advice_is_one_that_train_can_follow(
    copy: Path, train, capfd
) -> None:
    for path in location.numbered(copy):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        PlanetError, match="and there is none before it.* --offline --data .*episodes"
    ) as caught:
        train(copy, "train.env_steps=1800")
    assert "--checkpoint" not in str(caught.value) + capfd.readouterr().err
