"""What an agent refuses, in a line, and what it takes."""

import numpy as np
import pytest
import torch

from planet_rssm.agent.inputs import check_inputs
from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.spec import EnvSpec

SPEC = EnvSpec(
    "mine:Arm",
    {"image": ((32, 32, 3), "uint8"), "joints": ((4,), "float32")},
    2,
    1,
    0.05,
    100,
    "own",
    "mine 1",
)
IMAGE, JOINTS = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 4), np.float32)
ACTION, FIRST = np.zeros((1, 2), np.float32), np.array([True])


def check(image=IMAGE, joints=JOINTS, action=ACTION, first=FIRST) -> None:
    check_inputs(SPEC, 1, {"image": image, "joints": joints}, action, first)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_arrays_and_tensors_of_the_right_shape_are_taken(kind):
    check(kind(IMAGE), kind(JOINTS.astype(np.float64)), kind(ACTION), kind(FIRST))
    check_inputs(SPEC, 1, None, kind(ACTION), kind(FIRST))  # a dropped frame


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"image": IMAGE[0]},
            r"observation 'image': uint8 \[32, 32, 3\]; must be uint8 \[1, 32, 32, 3\] for 1 rows; "
            r"add the batch axis: value\[None\]",
        ),
        (
            {"image": IMAGE / 255.0},
            "observation 'image': float64 .*; must be uint8, 0 to 255; scale floats",
        ),
        (
            {"image": IMAGE.astype(np.int64)},
            "observation 'image': int64 .*; must be uint8, 0 to 255; convert it",
        ),
        (
            {"image": torch.zeros(1, 3, 32, 32)},
            r"observation 'image': float32 \[1, 3, 32, 32\]; must be uint8 ",
        ),
        (
            {"image": IMAGE[:, :16]},
            r"observation 'image': uint8 \[1, 16, 32, 3\]; must be uint8 \[1, 32, 32, 3\] "
            r"for 1 rows; resize it, planet_rssm.envs.pictures.resized\(frame, 32\)",
        ),
        (
            {"joints": JOINTS[:, :3]},
            r"observation 'joints': float32 \[1, 3\]; must be float32 \[1, 4\]",
        ),
        ({"joints": np.full((1, 4), np.nan)}, "observation 'joints': has NaN or infinity in it"),
        (
            {"action": np.zeros(2)},
            r"executed_action: float64 \[2\]; must be float32 \[1, 2\] .*value\[None\]",
        ),
        ({"action": np.array([[0, np.inf]])}, "executed_action: has NaN or infinity in it"),
        (
            {"action": np.array([[0.5, -3.0]])},
            r"executed_action: 3 is among it; must be in \[-1, 1\]",
        ),
        ({"first": True}, r"is_first: shape \[\]; must be \[1\], a bool a row"),
    ],
)
def test_what_would_be_believed_wrongly_is_one_line(given, line):
    with pytest.raises(PlanetError, match=f"^{line}"):
        check(**given)


def test_a_missing_key_is_named():
    with pytest.raises(
        PlanetError,
        match=r"^observation: no 'joints' in \['image'\]; the model was trained on it",
    ):
        check_inputs(SPEC, 1, {"image": IMAGE}, ACTION, FIRST)
    with pytest.raises(PlanetError, match="^observation: no 'image' in "):
        check_inputs(SPEC, 1, IMAGE, ACTION, FIRST)
