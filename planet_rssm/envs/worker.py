"""One environment in its own process, commanded by JSON lines: `python -m planet_rssm.envs.worker`.

Commands come on standard input, `{"do": "reset", "seed": 1}`, `{"do": "step"}`, `{"do": "render",
"size": 64}`, and each is answered by one line on a separate pipe, which has under "log" what was
logged meanwhile. Actions and frames go through memory that both sides map. An error ends the
process; a line that says it all is its last answer, under "last". At the end
of standard input the environment is closed. When the parent dies, this process and those that the
environment started are killed, whatever they are doing.
"""

import functools
import json
import logging
import mmap
import os
import sys
import traceback
from types import TracebackType
from typing import TextIO

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.parent import die_with_parent, own_commands
from planet_rssm.base.text import one_line
from planet_rssm.config import EnvSettings
from planet_rssm.envs.api_checks import ContractError
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.gym_env import GymEnv
from planet_rssm.envs.make import make
from planet_rssm.envs.pictures import MAX_FRAME
from planet_rssm.envs.spec import EnvSpec

_ALIGNMENT = 64  # bytes
_ACTION, _FRAME = "<action>", "<frame>"  # keys that no observation has


class Shared:
    """The arrays that parent and worker share: action, observation and a frame for videos."""

    def __init__(self, descriptor: int, spec: EnvSpec) -> None:
        """Map `descriptor`, grown to what `spec` needs; untouched pages cost nothing."""
        fields = {
            _ACTION: ((spec.action_size,), "float32"),
            **spec.observation,
            _FRAME: ((MAX_FRAME**2 * 3,), "uint8"),
        }
        offsets = {}
        size = 0
        for key, (shape, dtype) in fields.items():
            offsets[key] = size
            size += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
        arrays = {
            key: np.ndarray(shape, dtype, memory, offsets[key])
            for key, (shape, dtype) in fields.items()
        }
        self.action = arrays.pop(_ACTION)
        self.frame = arrays.pop(_FRAME)
        self.observation = arrays

    def frame_of(self, size: int) -> np.ndarray:
        """Return the view in which a frame [size, size, 3] is passed."""
        return self.frame[: size * size * 3].reshape(size, size, 3)


class _Replies(logging.Handler):
    """The way back to the parent, for answers and for what is logged."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._file: TextIO = os.fdopen(descriptor, "w", buffering=1)
        self._log: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line for the next answer."""
        self._log.append((record.levelno, record.getMessage()))

    def send(self, answer: Json) -> None:
        """Answer a command."""
        lines, self._log = self._log, []
        try:
            self._file.write(json.dumps(answer | {"log": lines} if lines else answer) + "\n")
        except BrokenPipeError:  # the parent died while this worker was busy
            os._exit(0)


def main() -> None:
    """Serve one environment.

    Arguments are its settings as JSON, then descriptors: of the shared file, of the replies, and of
    a pipe whose other end only the parent has, which closes when the parent dies.
    """
    descriptors = [int(number) for number in sys.argv[2:]]
    for descriptor in descriptors:  # not for programs that the environment starts
        os.set_inheritable(descriptor, False)
    die_with_parent(descriptors[2])
    commands = os.fdopen(own_commands())
    replies = _Replies(descriptors[1])
    sys.excepthook = functools.partial(_last_words, os.getpid(), replies)
    log = logging.getLogger("planet_rssm")
    log.addHandler(replies)
    log.setLevel(logging.INFO)
    try:
        env = make(EnvSettings.model_validate_json(sys.argv[1]))
    except PlanetError as error:
        return replies.send({"error": str(error)})
    shared = Shared(descriptors[0], env.env_spec)
    replies.send({"spec": env.env_spec.to_json()})
    for line in commands:
        try:
            replies.send(_obey(env, shared, json.loads(line)))
        except ContractError as error:
            return replies.send({"error": str(error)})
    env.close()


def _last_words(
    worker: int,
    replies: _Replies,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Tell the parent what went wrong; what a library prints as the process ends comes after it."""
    sys.__excepthook__(kind, error, trace)
    if os.getpid() != worker:  # a fork of the environment's, whose end is not ours
        return
    frame = traceback.extract_tb(trace)[-1]
    folder, file = os.path.split(frame.filename)
    checked = isinstance(error, ValueError) and folder == os.path.dirname(__file__)
    if checked or isinstance(error, PlanetError):  # a line that is complete as it is
        replies.send({"last": one_line(str(error))})
        return
    where = f"{file}, line {frame.lineno}"
    replies.send({"last": f"{one_line(f'{kind.__name__}: {error}')} ({where})"})


def _obey(env: DMControlEnv | GymEnv, shared: Shared, command: Json) -> Json:
    if command["do"] == "render":
        shared.frame_of(command["size"])[:] = env.render_frame(command["size"])
        return {}
    if command["do"] == "reset":
        observation, _ = env.reset(seed=command["seed"])
        answer: Json = {}
    else:
        observation, reward, terminated, truncated, info = env.step(shared.action)
        answer = {
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "env_steps": info["env_steps"],
        }
    for key, value in observation.items():
        shared.observation[key][:] = value
    _check_finite({"reward": answer.get("reward", 0.0), **shared.observation})
    return answer


def _check_finite(values: Json) -> None:
    """Refuse what nothing can be learned from: NaN, infinity, a reward beyond float32."""
    for key, value in values.items():
        wrong = np.extract(~(np.abs(value) <= np.finfo(np.float32).max), value)
        if wrong.size:
            raise PlanetError(
                f"{key} = {wrong[0]}: must be finite, in float32; fix the environment"
            )


if __name__ == "__main__":
    main()
