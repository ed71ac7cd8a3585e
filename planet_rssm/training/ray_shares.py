"""Shares of a set of episodes as tasks of Ray; see record.py for what a share is."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planet_rssm.base.cluster import Head
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.text import one_line
from planet_rssm.collect import collect
from planet_rssm.config import EnvSettings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.pool import EnvPool
from planet_rssm.runs.remote import Reply, accept, answer
from planet_rssm.training.player import Player, Recipe, simple_policy

if TYPE_CHECKING:
    from ray import ObjectRef

OPTION = "--on"
_TICK = 0.2  # seconds between two looks whether to stop
_AGAIN = 5  # times that Ray makes a task again whose process or node is gone


def played_on_cluster(
    player: Player,
    shares: Sequence[Sequence[int]],
    rows: int,
    seed: int,
    tick: Callable[[], object],
) -> Iterator[tuple[int, Episode]]:
    """Yield index and episode of all shares, as they end on the cluster that is connected.

    `tick` is called meanwhile, and may raise.

    Raises:
        PlanetError: one could not be played, a node has other versions, or the head is gone.
    """
    import ray

    head = Head(OPTION)
    recipe = player.recipe()
    data = ray.put(np.frombuffer(recipe.checkpoint, np.uint8))
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    task: Any = ray.remote(num_cpus=min(recipe.threads, largest), max_retries=_AGAIN)(play)
    recipe = recipe._replace(checkpoint=b"")
    order = {"env": player.env.model_dump_json(), "rows": rows, "seed": seed}
    order["recipe"] = {**recipe._asdict(), "checkpoint": ""}
    going: dict[ObjectRef, Sequence[int]] = {
        task.remote(data, json.dumps({**order, "indices": list(share)})): share for share in shares
    }
    while going:
        tick()
        head.check()
        for ref in ray.wait(list(going), timeout=_TICK)[0]:
            share = going.pop(ref)
            try:
                _, bodies = accept(OPTION, ray.get(ref))
            except ray.exceptions.RayError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise PlanetError(f"{OPTION}: {one_line(lines[0])}") from error
            for index, body in zip(share, bodies, strict=True):
                yield index, Episode.from_bytes(body.tobytes(), Path(f"episode {index}"))


def play(data: np.ndarray, words: str) -> Reply:
    """Play a share in a process of the cluster; the bytes are its episodes."""

    def work(header: Json) -> list[np.ndarray]:
        order = json.loads(words)
        recipe = Recipe(**{**order["recipe"], "checkpoint": data.tobytes()})
        if recipe.checkpoint:
            from planet_rssm.training.agent_player import recipes_policy  # loads torch

            make = recipes_policy(recipe)
        else:
            make = simple_policy(recipe.policy, recipe.seed)
        indices = order["indices"]
        seeds = [stream_seed(order["seed"], Stream.DATA_RESET, index) for index in indices]
        env = EnvSettings.model_validate_json(order["env"])
        with EnvPool(env, order["rows"]) as pool:
            policy = make(pool.spec, pool.count, indices)
            episodes = dict(collect(pool, policy, seeds))
        return [np.frombuffer(episodes[at].to_bytes(), np.uint8) for at in range(len(indices))]

    return answer(work)
