"""The types of settings: what a file or a command line may give, and what becomes of it."""

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
# Arguments of an environment that something else decides, and what.
_OURS = {
    "render_mode": "env.observe",
    "max_episode_steps": "env.time_limit",
    "disable_env_checker": "planet",
    "id": "env.id",
}


class Section(BaseModel):
    """A frozen group of settings; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _integer(value: object) -> object:
    """Return 1e6, which YAML reads as text, as the integer that it is; anything else unchanged."""
    try:
        number = float(value) if isinstance(value, str) and "e" in value.lower() else 0.5
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


def number(value: object) -> object:
    """Refuse yes and no, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not a yes or no")
    return value


def _names(value: object) -> object:
    """Return a list of the names in the text `a,b`; numbers are those of a Tuple's parts."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    return [
        str(part) if isinstance(part, int) and not isinstance(part, bool) else part
        for part in parts
    ]


LONGEST = 100_000  # characters, as JSON: they are an argument of the environments' processes
DEEPEST = 20  # lists and mappings within one another, in an argument of an environment


def _plain(value: object, depth: int = 0) -> object:
    """Return a value of YAML; 1e-3, which YAML reads as text, becomes the number that it is.

    Raises:
        ValueError: something that JSON has no word for, or nested too deeply.
    """
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, str):
        return float(value) if _EXPONENT.fullmatch(value) else value
    if isinstance(value, list | tuple):
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(part, depth + 1) for key, part in value.items()}
    if (
        value is None
        or isinstance(value, bool | int)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise ValueError(
        f"{value!r} is no number, text, list or mapping of such; quote it to have a text"
    )


def _arguments(value: object) -> object:
    """Return the arguments of an environment, checked as far as can be without it."""
    if not isinstance(value, dict):
        return value  # refused as no mapping
    for name, part in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise PydanticCustomError("name", "must name arguments, env.kwargs.NAME=value")
        if name in _OURS:
            raise PydanticCustomError("ours", f"must not have {name}, which {_OURS[name]} decides")
        try:
            _plain(part)
        except ValueError as error:
            raise PydanticCustomError(
                "value",
                "must have plain values, but {name}: {error}",
                {"name": name, "error": str(error)},
            ) from None
    plain = {name: _plain(part) for name, part in value.items()}
    if (size := len(json.dumps(plain))) > LONGEST:
        raise PydanticCustomError(
            "size",
            "must have at most {most} characters as JSON, these have {size}; write the data into "
            "a file, and give its path",
            {"most": LONGEST, "size": size},
        )
    return plain


Number = Annotated[float, BeforeValidator(number)]
Integer = Annotated[int, BeforeValidator(_integer), BeforeValidator(number)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Switch = Annotated[bool, Field(strict=True)]  # true or false, not what Python takes for one
Count = Annotated[Integer, Field(ge=1, le=2**53)]  # an integer that no tool rounds
Threads = Annotated[Integer, Field(ge=1, le=1024)]  # more ends a process without a word
Share = Annotated[Number, Field(gt=0, le=1)]
Layers = Annotated[Integer, Field(ge=0, le=1000)]  # more is a mistake that takes hours to build
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_names)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments)]
Activation = Literal["relu", "elu", "silu"]
Norm = Literal["none", "layer", "rms"]
# Of matrix products and convolutions. auto: bfloat16 where this machine is faster in it, else
# float32.
Precision = Literal["auto", "float32", "bfloat16", "float16"]
