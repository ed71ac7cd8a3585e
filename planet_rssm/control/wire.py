"""What a planning service and its clients send each other: JSON, and arrays as their plain bytes.

    4 bytes  length of the JSON, little-endian
    JSON     what it is, and what follows
    arrays   each as its bytes, in the order and of the sizes that the JSON and the spec say

The length of a message is known before any array of it is looked at. Nothing is a pickle.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.envs.spec import EnvSpec

Array = np.ndarray
MOST_FRAMES = 64  # of one request
MOST_COMMITTED = 64  # actions of one request
MOST_JSON = 1 << 13  # bytes
MOST_COUNT = 1 << 40
_LENGTH = 4


class Frame(NamedTuple):
    """An observation, and what led to it."""

    observation: dict[str, Array] | None  # [1, ...] by key; None: it was dropped
    executed: Array  # float32 [1, A]
    is_first: bool


class Request(NamedTuple):
    """Frames to take in, and if `plan` a decision to make after them; see Agent."""

    step: int  # observations taken in before: the session must stand there, or an episode begins
    frames: Sequence[Frame]
    plan: bool = True
    committed: Array | None = None  # float32 [1, d, A]
    executed: int = 1
    rounds: int | None = None
    deadline_ms: float | None = None  # from its arrival until the search has begun; None: any


class Reply(NamedTuple):
    """A decision of one row."""

    action: Array  # float32 [1, A]
    sequence: Array  # float32 [1, H, A]
    value: Array  # float32 [1]
    rounds_done: int


def most_bytes(spec: EnvSpec) -> int:
    """Return the bytes of the longest request."""
    frames = MOST_FRAMES * (_observation_bytes(spec) + _action_bytes(spec))
    return _LENGTH + MOST_JSON + frames + MOST_COMMITTED * _action_bytes(spec)


def pack_request(request: Request, spec: EnvSpec) -> bytes:
    """Return the bytes of a request."""
    arrays = []
    for frame in request.frames:
        arrays.append(np.asarray(frame.executed, np.float32))
        if frame.observation is not None:
            arrays += [
                np.asarray(frame.observation[key], dtype)
                for key, (_, dtype) in spec.observation.items()
            ]
    committed = request.committed
    if committed is not None:
        arrays.append(np.asarray(committed, np.float32))
    header = {
        "step": request.step,
        "frames": [[frame.observation is not None, frame.is_first] for frame in request.frames],
        "plan": request.plan,
        "committed": 0 if committed is None else committed.shape[1],
        "executed": request.executed,
        "rounds": request.rounds,
        "deadline_ms": request.deadline_ms,
    }
    return _pack(header, arrays)


def unpack_request(data: bytes, spec: EnvSpec) -> Request:
    """Return the request of these bytes, whoever sent them.

    Raises:
        PlanetError: they are none for this spec: a count out of its range, another length, or
            numbers that are not finite.
    """
    header, rest = _unpack(data)
    frames = header.get("frames")
    flags = isinstance(frames, list) and all(
        isinstance(frame, list) and len(frame) == 2 and all(type(flag) is bool for flag in frame)
        for frame in frames
    )
    if not isinstance(frames, list) or not flags or len(frames) > MOST_FRAMES:
        raise PlanetError(
            f"request: frames must be a list of at most {MOST_FRAMES} pairs of booleans, whether "
            "there is an observation and whether an episode begins"
        )
    step, executed = (_count(header, key, least) for key, least in (("step", 0), ("executed", 1)))
    ahead = _count(header, "committed", 0)
    if ahead > MOST_COMMITTED:
        raise PlanetError(f"request: committed {ahead}; at most {MOST_COMMITTED} actions")
    rounds = None if header.get("rounds") is None else _count(header, "rounds", 1)
    deadline = header.get("deadline_ms")
    if deadline is not None and (
        type(deadline) not in (int, float) or not 0 < deadline <= MOST_COUNT
    ):
        raise PlanetError("request: deadline_ms must be a number above 0, or null")
    observations = sum(frame[0] for frame in frames)
    needs = (len(frames) + ahead) * _action_bytes(spec) + observations * _observation_bytes(spec)
    if len(rest) != needs:
        shapes = ", ".join(
            f"{key} {dtype} {list(shape)}" for key, (shape, dtype) in spec.observation.items()
        )
        raise PlanetError(
            f"request: {len(rest)} bytes of arrays; {needs} are those of {len(frames)} frames, "
            f"{observations} with {shapes}, each with an action float32 [{spec.action_size}]"
        )
    arrays = _Arrays(rest)
    taken = []
    for observed, is_first in frames:
        action = arrays.take((1, spec.action_size), "float32")
        observation = (
            {
                key: arrays.take((1, *shape), dtype)
                for key, (shape, dtype) in spec.observation.items()
            }
            if observed
            else None
        )
        taken.append(Frame(observation, action, is_first))
    committed = arrays.take((1, ahead, spec.action_size), "float32") if ahead else None
    plan = header.get("plan") is not False
    return Request(step, taken, plan, committed, executed, rounds, deadline)


def pack_reply(reply: Reply | None) -> bytes:
    """Return the bytes of a reply; None: there was nothing to decide."""
    if reply is None:
        return _pack({}, [])
    header = {"rounds_done": reply.rounds_done, "horizon": reply.sequence.shape[1]}
    return _pack(header, [reply.action, reply.sequence, reply.value])


def unpack_reply(data: bytes, spec: EnvSpec) -> Reply | None:
    """Return the reply of these bytes.

    Raises:
        PlanetError: they are none.
    """
    header, rest = _unpack(data)
    if not header:
        return None
    horizon, size = _count(header, "horizon", 1), spec.action_size
    if len(rest) != 4 * (size + horizon * size + 1):
        raise PlanetError(f"reply: {len(rest)} bytes of arrays, for {horizon} steps")
    arrays = _Arrays(rest)
    shapes = (1, size), (1, horizon, size), (1,)
    action, sequence, value = (arrays.take(shape, "float32") for shape in shapes)
    return Reply(action, sequence, value, _count(header, "rounds_done", 1))


class _Arrays:
    """Takes arrays off bytes, whose length was checked."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, shape: tuple[int, ...], dtype: str) -> Array:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        part, self._data = self._data[:size], self._data[size:]
        return np.frombuffer(part, dtype).reshape(shape).copy()  # writable, and aligned


def _pack(header: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    text = json.dumps(header).encode()
    return b"".join([
        len(text).to_bytes(_LENGTH, "little"), text,
        *(np.ascontiguousarray(array).tobytes() for array in arrays),
    ])  # fmt: skip


def _unpack(data: bytes) -> tuple[Json, memoryview]:
    length = int.from_bytes(data[:_LENGTH], "little")
    begin = _LENGTH + length
    if len(data) < begin or length > MOST_JSON:
        raise PlanetError(f"message: must begin with the length of its JSON, at most {MOST_JSON}")
    try:
        header = json.loads(data[_LENGTH:begin])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise PlanetError("message: its JSON is no object")
    return header, memoryview(data)[begin:]


def _count(header: Mapping[str, Any], key: str, least: int) -> int:
    value = header.get(key)
    if type(value) is not int or not least <= value <= MOST_COUNT:
        raise PlanetError(f"message: {key} must be an integer, at least {least}")
    return value


def _action_bytes(spec: EnvSpec) -> int:
    return 4 * spec.action_size


def _observation_bytes(spec: EnvSpec) -> int:
    return sum(
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in spec.observation.values()
    )
