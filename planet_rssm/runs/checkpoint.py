"""One checkpoint, one safetensors file: weights, optimiser state, and a JSON header.

It has all that acting needs: settings, spaces and the control interval. No pickle is read or
written.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from planet_rssm import config
from planet_rssm.base import trust
from planet_rssm.base.device import resolve_device
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import open_regular, read_regular, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.config import FORMAT, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs.location import BEST, SUFFIX, find

MOST = 1 << 36  # bytes that are read of one
MOST_HEAD = 1 << 26  # of its head alone
# Parts of the world model by the names that older checkpoints have.
_RENAMED = {"goes_on.": "continue_head."}


@dataclass(frozen=True)
class Checkpoint:
    """What a run knows at one moment; tensors by name, on the CPU."""

    settings: Settings
    spec: EnvSpec
    progress: Json  # the trainer's counters
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    # actor and critic; empty where a run learns none
    behavior: dict[str, Tensor] = field(default_factory=dict)
    # that plan episodes beside the learner; empty but in the middle of such a round
    collecting: dict[str, Tensor] = field(default_factory=dict)
    name: str = "checkpoint"  # for error lines: with the file that it was read from

    def acting(self, overrides: Sequence[str]) -> "Checkpoint":
        """Return the same with other settings of how it acts; see config.with_planner."""
        return replace(self, settings=config.with_planner(self.settings, overrides))

    def light(self, float16: bool = False) -> "Checkpoint":
        """Return all that acting needs: no optimiser's state, and weights in half the bytes if so.

        A third of the bytes, or a sixth. `load` returns float32 again, rounded.
        """
        half = _halved if float16 else dict[str, Tensor]
        return replace(
            self,
            optimizer={},
            collecting={},
            model=half(self.model),
            behavior=half(self.behavior),
        )


class OpenedRun(NamedTuple):
    """A run that is only read: one of its checkpoints, where to put the model, and the file."""

    checkpoint: Checkpoint
    device: torch.device
    path: Path


class DamagedCheckpointError(PlanetError):
    """The file is there but not as it was written."""


def open_run(
    run: Path | str,
    which: str = "last",
    overrides: Sequence[str] = (),
    device: str | torch.device = "auto",
) -> OpenedRun:
    """Read a checkpoint of a run, to act with it or to measure it; nothing in the run changes.

    Args:
        run: a run folder, `pretrained:NAME` or `hf:OWNER/NAME`.
        which: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts that change how it acts; see config.with_planner.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, or an override that is
            refused.
    """
    path = find(Path(run), which)
    checkpoint = load(path).acting(overrides)
    return OpenedRun(checkpoint, resolve_device(str(device)), path)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write all of `path`, or nothing.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    write_atomic(path, [to_bytes(checkpoint)])


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a file with this checkpoint."""
    groups = {
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "behavior": checkpoint.behavior,
        "collecting": checkpoint.collecting,
    }
    tensors = {
        f"{group}/{key}": tensor.contiguous()
        for group, named in groups.items()
        for key, tensor in named.items()
    }
    header = {
        "format": FORMAT,
        "settings": config.flatten(checkpoint.settings),
        "spec": checkpoint.spec.to_json(),
        "progress": checkpoint.progress,
    }
    header["crc32"] = _crc32(header, tensors)
    # One string: the order of several metadata keys is not fixed, and equal checkpoints should be
    # equal files.
    return safetensors.torch.save(tensors, {"planet_rssm": json.dumps(header)})


def load(path: Path, *, trusted: bool = False) -> Checkpoint:
    """Read a checkpoint and check that header and tensors are as they were written.

    Unless it is `trusted`, the code that its settings name must be the user's own, or allowed; see
    trust.py.

    Raises:
        DamagedCheckpointError: they are not.
        PlanetError: it cannot be read, or is of a newer format.
    """
    try:
        data = read_regular(path, MOST)
    except OSError as error:
        raise PlanetError(f"checkpoint {path}: not readable ({error.strerror})") from None
    try:
        read = from_bytes(data, f"checkpoint {path}")
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{error}; {_others(path)}") from None
    _check_name(path, read)
    if not trusted:
        trust.require(config.flatten(read.settings), read.name)
    return read


def from_bytes(data: bytes, name: str) -> Checkpoint:
    """Return the checkpoint that `to_bytes` made these of; `name` is whose they are, in errors.

    Raises:
        DamagedCheckpointError: they are not as they were made.
        PlanetError: they are of a newer format.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["planet_rssm"])
        if (newer := header["format"]) > FORMAT:
            raise PlanetError(f"{name}: format {newer}, this version reads up to {FORMAT}; upgrade")
        tensors = safetensors.torch.load(data)
        intact = header.pop("crc32") == _crc32(header, tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedCheckpointError(f"{name}: damaged or not a checkpoint")
    return _read(name, header, tensors)


def progress_of(path: Path) -> Json:
    """Return what the trainer had counted, of the file's head alone.

    Raises:
        PlanetError: it cannot be read or is no checkpoint.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = file.read(min(length, MOST_HEAD))
        return _plain(json.loads(json.loads(head)["__metadata__"]["planet_rssm"])["progress"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = one_line(str(error))
        raise PlanetError(f"checkpoint {path}: not readable as one ({line})") from None


def _read(name: str, header: Json, tensors: dict[str, Tensor]) -> Checkpoint:
    """Return what a file says that is as it was written, whoever wrote it."""
    groups: dict[str, dict[str, Tensor]] = {
        group: {} for group in ("model", "optimizer", "behavior", "collecting")
    }
    try:
        for key, tensor in tensors.items():
            group, _, inside = key.partition("/")
            # models of the package are stored in half precision
            stored = tensor.float() if tensor.dtype == torch.float16 else tensor
            groups[group][_named_today(group, inside)] = stored
        settings = config.resolve(config.upgraded(dict(header["settings"])))
        spec = EnvSpec.from_json(header["spec"])
        progress = _plain(header["progress"])
    except (
        PlanetError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise PlanetError(
            f"{name}: of another version of planet_rssm ({one_line(str(error))}); use that one"
        ) from None
    for group, tensors_of in groups.items():
        for inside, tensor in tensors_of.items():
            if not _finite(tensor):
                raise PlanetError(
                    f"{name}: {group}/{inside} holds numbers that are not finite; "
                    "use another checkpoint"
                )
    return Checkpoint(settings, spec, progress, **groups, name=name)


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }


def _named_today(group: str, key: str) -> str:
    """Return a tensor's name today: older checkpoints name parts of the model otherwise."""
    if group in ("behavior", "collecting"):
        return key
    for old, new in _RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _plain(progress: Json) -> Json:
    """Return what the trainer counted, if each count is one.

    Raises:
        ValueError: it is no count, or no number that a run could have come to.
    """
    for key, value in progress.items():
        leaves = [value]
        while leaves:
            leaf = leaves.pop()
            leaves += (
                leaf.values() if isinstance(leaf, dict) else leaf if isinstance(leaf, list) else []
            )
            wrong = isinstance(leaf, int | float) and not abs(leaf) <= (
                2**53 if isinstance(leaf, int) else 1e300
            )
            if wrong or isinstance(leaf, str):
                raise ValueError(f"progress {key} = {str(leaf)[:40]}")
    for key in ("env_steps", "updates"):
        if (
            type(value := progress.get(key, 0)) is not int
            or value < 0
            or "env_steps" not in progress
        ):
            raise ValueError(f"progress {key} = {progress.get(key)}")
    return progress


def _check_name(path: Path, read: Checkpoint) -> None:
    """Refuse a file that was put in another's place: each is named by what it has learned from."""
    unit = "env_steps" if read.settings.data.folder is None else "updates"
    count = read.progress.get(unit, 0)
    if path.stem.isdecimal() and int(path.stem) != count:
        raise PlanetError(
            f"{read.name}: by its name it has {int(path.stem)} {unit}, by what it holds {count}; "
            f"call it {count:010d}{SUFFIX}, or use another"
        )
    best = read.progress.get("best_env_steps")
    if path.stem == BEST and best is not None and best != count:
        raise PlanetError(
            f"{read.name}: holds {count} {unit}, the best had {best}; use another checkpoint"
        )


def fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy a checkpoint's tensors into `module`; `what` names them in error lines.

    Raises:
        PlanetError: one is missing, too many, or of another shape or type than the module's.
    """
    wanted = module.state_dict()
    odd = sorted(wanted.keys() ^ tensors.keys())
    for key in odd:
        how = "lacks" if key in wanted else "has, which its settings make no place for,"
        raise PlanetError(
            f"{what} {how} {key} ({len(odd)} such): not as planet_rssm wrote it; "
            "use another checkpoint"
        )
    for key, tensor in wanted.items():
        for name, of in {"shape": lambda t: list(t.shape), "type": lambda t: t.dtype}.items():
            if of(tensors[key]) != of(tensor):
                raise PlanetError(
                    f"{what} {key} has {name} {of(tensors[key])}, its settings make it "
                    f"{of(tensor)}: not as planet_rssm wrote it; use another checkpoint"
                )
    module.load_state_dict(dict(tensors))


def _crc32(header: Json, tensors: dict[str, Tensor]) -> int:
    value = zlib.crc32(json.dumps(header).encode())
    for key in sorted(tensors):
        kind = f"{key} {tensors[key].dtype} {list(tensors[key].shape)}"
        value = zlib.crc32(tensors[key].numpy().tobytes(), zlib.crc32(kind.encode(), value))
    return value


def _others(path: Path) -> str:
    others = [other.stem for other in sorted(path.parent.glob(f"*{SUFFIX}")) if other != path]
    return (
        f"use --checkpoint {' or '.join(others)}"
        if others
        else "there is no other beside it; train again"
    )
