"""Where tensors live, in which precision they are multiplied, and generators made from seeds."""

import contextlib
from collections.abc import Iterator

import torch

from planet_rssm.errors import PlanetError

KINDS = ("cpu", "cuda", "mps", "xpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is cuda where there is one, else cpu.

    Raises:
        PlanetError: the name is no device, or there is none of that kind here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in KINDS:  # torch knows more, most of which hold no numbers or need a plug-in
        raise PlanetError(f"device {name!r}: not one of {', '.join(KINDS)}; use auto or cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise PlanetError(f"device {name!r}: not usable here ({reason}); use auto or cpu") from None
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return a context in which matrix products and convolutions run in `precision`; parameters stay float32."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


@contextlib.contextmanager
def within_memory(device: torch.device, part: str, mend: str) -> Iterator[None]:
    """Tell in one line what did not fit into the memory of `device`.

    Raises:
        PlanetError: it ran out inside.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise PlanetError(f"device {device}: too little free memory for {part}; {mend}") from None


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a generator on `device` that starts from `seed`, see seeding.stream_seed."""
    return torch.Generator(device).manual_seed(seed)
