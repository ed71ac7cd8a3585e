"""What a return is compared with: random, zero and constant actions, and the untrained planner.

On cartpole-balance doing nothing scores 745 of 1000 and random 257: "better than random" alone
proves nothing.
"""

import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.files import UNSEALED, is_sealed, read_regular, seal, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import Settings, flatten, learned_parts
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.blind_baselines import Returns, simple_baselines
from planet_rssm.evaluation.protocol import PARALLEL, OnProgress, episode_seeds, play
from planet_rssm.runs.location import outputs, source
from planet_rssm.world_model import untrained_model

CACHE = "baselines.json"
SEAL = "crc32"  # key of the checksum in it
# baselines that depend on the same settings
PARTS = {"blind": ("random", "zero", "constant"), "untrained": ("untrained",)}

_log = logging.getLogger("planet_rssm")


@dataclass(frozen=True)
class _Part:
    """Baselines that were measured together, and all that decided their returns."""

    key: Json  # as JSON
    returns: Returns

    def to_json(self) -> Json:
        return dict(vars(self))


def baselines(
    run: Path,
    settings: Settings,
    spec: EnvSpec,
    episodes: int,
    device: torch.device,
    on_stage: Callable[[str], None] = lambda name: None,
    on_progress: OnProgress = lambda done, total: None,
) -> Returns:
    """Return the four baselines of a run, by episode.

    They are measured once for given settings and kept in the run folder. Another planner costs a
    measurement of the untrained model alone: the others look at nothing. A run folder that cannot
    be written costs a warning.

    The constant is the one with the best mean, chosen on the same episodes as it is reported on: a
    generous baseline.

    Args:
        run: the run folder.
        settings: of the run; another planner is allowed.
        spec: of the environments as they are now.
        episodes: how many, of each baseline.
        device: where the untrained model runs.
        on_stage: given the name of each baseline as it begins.
        on_progress: given the decisions made, and all that there are, of each baseline.
    """
    cache = outputs(run) / CACHE
    kept = _read(cache)
    if kept is None:
        _log.warning("%s: damaged; the baselines are measured again", cache)
    kept = kept or _read(source(run) / CACHE) or {}
    keys = _keys(settings, spec, episodes)
    parts = {name: _kept_part(kept, name, key) for name, key in keys.items()}
    if parts["blind"] is None:
        returns = simple_baselines(settings, spec, episodes, on_stage, on_progress)
        parts["blind"] = _Part(keys["blind"], returns)
    if parts["untrained"] is None:
        on_stage("untrained")
        values = untrained(settings, spec, episodes, device, on_progress)
        parts["untrained"] = _Part(keys["untrained"], {"untrained": values})
    complete = {name: part.to_json() for name, part in parts.items() if part is not None}
    if complete != kept:
        _write(cache, complete)
    return {
        name: returns for part in complete.values() for name, returns in part["returns"].items()
    }


def kept_baselines(run: Path) -> Returns:
    """Return the baselines, by episode, that the last `baselines` of a run kept; else none."""
    parts = [part for part in (_read(run / CACHE) or {}).values() if isinstance(part, dict)]
    return {name: returns for part in parts for name, returns in part.get("returns", {}).items()}


def _keys(settings: Settings, spec: EnvSpec, episodes: int) -> dict[str, Json]:
    """Return for each part all that decides its returns, as JSON gives it back."""
    common = {"episodes": episodes, "seed": settings.seed, "simulator": spec.simulator}
    learned = ["behavior"] if learned_parts(settings.planner) else []
    names = ["env", "rssm", "model", "planner", *learned]
    sections = {name: flatten(getattr(settings, name)) for name in names}
    return {
        "blind": _as_json({**common, "env": sections["env"]}),
        "untrained": _as_json({**common, **sections}),
    }


def _as_json(value: Json) -> Json:
    """Return a dict as a file gives it back: tuples become lists."""
    return json.loads(json.dumps(value))


def _read(cache: Path) -> Json | None:
    """Return what was measured before, nothing where no file is; None: the file is damaged.

    Files of versions that wrote no checksum are taken as they are.
    """
    try:
        data = read_regular(cache)
        kept = dict(json.loads(data))
    except OSError:
        return {}
    except (ValueError, TypeError, RecursionError):
        kept = {SEAL: None}
    if SEAL in kept and (kept.pop(SEAL) is None or not is_sealed(io.BytesIO(data))):
        return None
    return kept


def _write(cache: Path, parts: Json) -> None:
    """Keep the parts; a folder that cannot be written costs a warning."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, [seal(json.dumps({SEAL: UNSEALED, **parts}).encode())])
    except OSError as error:
        _log.warning(
            "baselines not kept in %s (%s); the next plan measures them again",
            cache,
            error.strerror,
        )


def _kept_part(kept: Json, name: str, key: Json) -> _Part | None:
    """Return a part of what was kept if it is complete and was measured under the same key."""
    try:
        returns = kept[name]["returns"]
        complete = all([float(value) for value in returns[one]] for one in PARTS[name])
        same = _as_json(_with_newer_settings(kept[name]["key"])) == key
        return _Part(kept[name]["key"], returns) if complete and same else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _with_newer_settings(key: Json) -> Json:
    """Return a key with the settings that are newer than it, at their defaults."""
    defaults = Settings()
    return {
        name: flatten(getattr(defaults, name)) | value if isinstance(value, dict) else value
        for name, value in key.items()
    }


def untrained(
    settings: Settings,
    spec: EnvSpec,
    episodes: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> list[float]:
    """Return what the same planner gets on the model as it was before the first update."""
    model = untrained_model(settings, spec).to(device)
    agent = Agent.build(
        settings, spec, model, untrained_behavior(settings, model), device=device, seed=0
    )
    rows = min(episodes, PARALLEL)
    with EnvPool(settings.env, rows) as pool:
        played = play(
            pool, AgentPolicy(agent, rows), episode_seeds(episodes), None, None, on_progress
        )
        return [result.episode_return for result in played]
