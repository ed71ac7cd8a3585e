import logging

import numpy as np
import pytest
from gymnasium import spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.observer import Observer, Spelling
from planet_rssm.envs.pictures import UndeclaredError

picture = spaces.Box(0, 255, (24, 20, 3), np.uint8)
place = spaces.Box(-1, 1, (2, 2))


def refusal(act, *arguments):
    with pytest.raises(PlanetError) as caught:
        act("gym/X-v0", *arguments)
    assert "\n" not in str(caught.value) and "gym/X-v0" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (place, [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (spaces.Box(0, 9, (), np.int64), 7, [7]),
        (
            spaces.Box(0, 255, (4,), np.uint8),
            [0, 255, 1, 2],
            [0, 255, 1, 2],
        ),  # a console's memory, no picture
        (
            spaces.Box(0, 255, (2, 1, 2), np.uint8),
            [[[9, 8]], [[7, 6]]],
            [9, 8, 7, 6],
        ),  # codes on a map
        (spaces.Discrete(3, start=-1), -1, [1, 0, 0]),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
    ],
)
def test_vectors(space, value, expected):
    observer = Observer("x", space, "vectors", 32)
    assert observer.spec == {"vector": ((len(expected),), "float32")} and not observer.draws
    np.testing.assert_array_equal(observer(value, None)["vector"], np.array(expected, np.float32))


@pytest.mark.parametrize("shape", [(24, 20, 3), (3, 24, 20), (24, 20, 1), (1, 24, 20), (24, 20)])
def test_images(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    observer = Observer("x", space, "pixels", 32)
    assert observer.spec == {"image": ((32, 32, 3), "uint8")} and not observer.draws
    image = observer(np.full(shape, 77, np.uint8), None)["image"]
    assert (image.shape, image.dtype, set(image.ravel().tolist())) == ((32, 32, 3), np.uint8, {77})


def test_the_way_up_and_the_colours_stay():
    first = np.zeros((3, 40, 60), np.uint8)
    first[0, :20], first[2, :, 30:] = 200, 100  # red above, blue at the right
    image = Observer("x", spaces.Box(0, 255, first.shape, np.uint8), "pixels", 32)(first, None)[
        "image"
    ]
    assert image[2, 2].tolist() == [200, 0, 0] and image[29, 29].tolist() == [0, 0, 100]


def test_frames_are_drawn_where_nothing_is_seen():
    frame = np.full((10, 30, 3), 9, np.uint8)
    for observe, keys in (("pixels", ["image"]), ("both", ["image", "vector"])):
        observer = Observer("x", place, observe, 32)
        assert observer.draws and sorted(observer.spec) == keys
        assert (observer(np.zeros((2, 2)), frame)["image"] == 9).all()


def test_entries_keep_their_names():
    space = spaces.Dict(
        {"eye": picture, "arm": spaces.Dict({"q": place, "on": spaces.Discrete(2)})}
    )
    assert Observer("x", space, "both", 64).spec == {
        "eye": ((64, 64, 3), "uint8"),
        "arm.q": ((4,), "float32"),
        "arm.on": ((2,), "float32"),
    }
    assert list(Observer("x", space, "pixels", 64).spec) == ["eye"]
    assert list(Observer("x", spaces.Tuple((place, picture)), "both", 64).spec) == ["0", "1"]


@pytest.mark.parametrize(
    ("space", "observe", "line"),
    [
        (
            spaces.Box(0, 255, (4, 84, 84), np.uint8),
            "pixels",
            "take its frame-stacking wrapper off",
        ),
        (
            spaces.Box(0, 255, (84, 84, 3, 4), np.uint8),
            "both",
            "its images have shape [84, 84, 3, 4]",
        ),
        (spaces.Box(0, 255, (0, 84, 84), np.uint8), "pixels", "[0, 84, 84]"),
        (picture, "vectors", "shows images only; use env.observe=pixels"),
        (picture, "both", "shows images only; use env.observe=pixels"),
        (
            spaces.Text(5),
            "vectors",
            "its observation is a Text space that makes no vector; use env.observe=pixels",
        ),
        (spaces.Dict({"said": spaces.Text(5), "at": place}), "both", "said is a Text space"),
        (spaces.Sequence(place), "vectors", "Sequence"),
        (spaces.Graph(place, place), "vectors", "Graph"),
        (spaces.Box(-1, 1, (0,)), "vectors", "Box space that makes no vector"),
        (spaces.Dict({"image": place}), "both", "more than one observation 'image'"),
        (
            spaces.Dict({"a.b": place, "a": spaces.Dict({"b": place})}),
            "vectors",
            "more than one observation 'a.b'",
        ),
    ],
)
def test_what_cannot_be_observed_is_refused(space, observe, line):
    assert line in refusal(Observer, space, observe, 64)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([[0, 0], [np.nan, 0]], "NaN or infinity"),
        ([[1e300, 0], [0, 0]], "NaN"),
        ([1, 2], r"has shape \[2\], its space \[2, 2\]"),
    ],
)
def test_vectors_that_lie_are_refused(value, line):
    with pytest.raises(ValueError, match=line):
        Observer("x", spaces.Box(-np.inf, np.inf, (2, 2), np.float64), "vectors", 32)(
            np.array(value), None
        )


def ramp(low, high, kind, shape=(32, 40, 3)):
    """Return a picture whose rows go from `low` to `high`."""
    rows = np.linspace(low, high, 32).reshape(32, *[1] * (len(shape) - 1))
    return np.broadcast_to(np.round(rows) if np.dtype(kind).kind != "f" else rows, shape).astype(
        kind
    )


NUMBERS = {
    "floats to 1": (0, 1, np.float32),
    "floats to 255": (0, 255, np.float64),
    "floats about 0": (-1, 1, np.float32),
    "halves": (-0.5, 0.5, np.float16),
    "16 bits": (0, 65535, np.uint16),
    "not quite bytes": (0, 254, np.uint8),
    "integers": (0, 255, np.int64),
}


@pytest.mark.parametrize(("low", "high", "kind"), NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("shape", [(32, 40, 3), (3, 32, 40), (32, 40)])
def test_images_of_any_numbers_are_scaled_from_their_bounds(low, high, kind, shape, caplog):
    space = spaces.Box(low, high, shape, kind)
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        observer = Observer("gym/X-v0", space, "pixels", 32)
    assert observer.spec == {"image": ((32, 32, 3), "uint8")} and not observer.draws
    assert len(caplog.messages) == 1 and f"from {low} to {high}, scaled to 0 to 255" in caplog.text
    picture = ramp(low, high, kind)
    picture = (
        np.moveaxis(picture, 2, 0)
        if shape[0] == 3
        else picture[..., 0]
        if len(shape) == 2
        else picture
    )
    image = observer(picture, None)["image"].astype(int)
    np.testing.assert_allclose(image[:, 5, 1], np.linspace(0, 255, 32), atol=3)
    assert not Observer("gym/X-v0", spaces.Dict(eye=space, at=place), "vectors", 32).spec.keys() - {
        "at"
    }


def test_bounds_may_differ_by_channel():
    high = np.broadcast_to(np.array([180, 1, 1], np.float32), (32, 32, 3))  # hue, saturation, value
    observer = Observer("x", spaces.Box(np.zeros_like(high), high), "pixels", 32)
    image = observer(np.broadcast_to(np.array([90, 1, 0], np.float32), (32, 32, 3)), None)["image"]
    assert image[3, 4].tolist() == [128, 255, 0]


def test_masks_are_black_and_white():
    observer = Observer("x", spaces.Box(0, 1, (32, 32), np.bool_), "pixels", 32)
    image = observer(np.eye(32, dtype=bool), None)["image"]
    assert image[7, 7].tolist() == [255] * 3 and image[7, 8].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("space", "why"),
    [
        (
            spaces.Box(-np.inf, np.inf, (30, 20)),
            "[30, 20] and without bounds",
        ),  # the last 30 prices of 20 shares
        (spaces.Box(0, 2, (19, 19), np.int8), "[19, 19] and small"),  # a board
        (spaces.Box(0, 1, (17, 19, 19)), "[17, 19, 19] and small"),  # planes of a board
    ],
)
def test_tables_stay_vectors_and_are_logged(space, why, caplog):
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        observer = Observer("gym/X-v0", space, "vectors", 32)
        assert Observer("gym/X-v0", space, "pixels", 32).draws
    assert observer.spec == {"vector": ((space.sample().size,), "float32")}
    line = f"gym/X-v0: its observation vector, {why}, is a table, not an image"
    assert caplog.messages == [line, line]


@pytest.mark.parametrize(
    "shape", [(5, 5), (8, 8, 111), (7, 11, 11), (1024, 3), (16, 2)]
)  # highway-env's, boards, points
def test_small_boards_are_vectors_without_a_word(shape, caplog):
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        assert Observer("x", spaces.Box(-np.inf, np.inf, shape), "both", 32).spec["vector"][0] == (
            np.prod(shape),
        )
    assert not caplog.messages


@pytest.mark.parametrize("observe", ["pixels", "both"])
def test_images_without_bounds_are_refused_with_what_works(observe):
    eye = spaces.Box(-np.inf, np.inf, (64, 64, 3))
    line = refusal(Observer, spaces.Dict(eye=eye, at=place), observe, 64)
    assert "its image eye has floats from -inf to inf; declare its pixels' bounds" in line
    assert line.endswith("or leave it out, -s env.drop=eye")
    assert Observer("x", spaces.Dict(eye=eye, at=place), observe, 64, drop=["eye"]).draws
    assert Observer("x", eye, "pixels", 64, drop=["image"]).draws  # the one space has this name


def test_four_channels_may_be_colours_or_stacked_frames():
    line = refusal(Observer, spaces.Box(0, 255, (64, 64, 4), np.uint8), "pixels", 64)
    assert "take its frame-stacking wrapper off" in line and "of RGBA return the first 3" in line


def test_frames_stacked_in_floats_are_refused_too():
    assert "take its frame-stacking wrapper off" in refusal(
        Observer, spaces.Box(0, 1, (4, 84, 84)), "pixels", 64
    )


MIXED = spaces.Dict(
    eye=picture,
    arm=spaces.Dict(q=place, on=spaces.Discrete(2)),
    said=spaces.Text(5),
    none=spaces.Box(0, 1, (0,)),
)


@pytest.mark.parametrize(
    ("observe", "names", "expected"),
    [
        ("both", {"drop": ["said"]}, ["arm.on", "arm.q", "eye"]),
        ("both", {"drop": ["said", "arm.on"]}, ["arm.q", "eye"]),
        ("both", {"drop": ["said", "eye"]}, ["arm.on", "arm.q", "image"]),  # which is drawn then
        ("vectors", {"drop": ["said", "none", "arm.q"]}, ["arm.on"]),
        ("both", {"keys": ["arm", "eye"]}, ["arm.on", "arm.q", "eye"]),
        ("both", {"keys": ["arm.q", "image"]}, ["arm.q", "image"]),
        ("pixels", {"keys": ["arm.q", "eye"]}, ["eye"]),
        ("vectors", {"keys": ["arm"], "drop": ["arm.on"]}, ["arm.q"]),
    ],
)
def test_names_are_left_out_or_alone_kept(observe, names, expected):
    observer = Observer("x", MIXED, observe, 32, **names)
    assert sorted(observer.spec) == expected and observer.draws == ("image" in expected)
    arrays = observer(MIXED.sample() | {"said": 5}, picture.sample() if observer.draws else None)
    assert sorted(arrays) == expected


@pytest.mark.parametrize(
    ("observe", "names", "line"),
    [
        (
            "both",
            {},
            "said is a Text space that makes no vector; leave it out, -s env.drop=said, or give",
        ),
        (
            "both",
            {"drop": ["siad"]},
            "env.drop = 'siad': gym/X-v0 has no such observation; did you mean 'said'?",
        ),
        (
            "vectors",
            {"keys": ["arm.p"]},
            "env.keys = 'arm.p': gym/X-v0 has no such observation; did you mean 'arm.",
        ),
        ("vectors", {"drop": ["image"]}, "env.drop = 'image'"),
        (
            "both",
            {"keys": ["arm"]},
            "env.keys: leaves no image of gym/X-v0 (what it draws is 'image')",
        ),
        ("vectors", {"keys": ["eye"]}, "shows images only; use env.observe=pixels"),
        (
            "vectors",
            {"keys": ["none"]},
            "none is a Box space that makes no vector; use env.observe=pixels",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(observe, names, line):
    with pytest.raises(PlanetError) as caught:
        Observer("gym/X-v0", MIXED, observe, 32, **names)
    assert line in str(caught.value)


def test_what_is_drawn_is_not_dropped():
    with pytest.raises(
        PlanetError, match=r"env\.drop: leaves no image of x .* use env\.observe=vectors"
    ):
        Observer("x", place, "both", 32, drop=["image"])


def test_names_are_quoted_for_a_shell_and_importers_have_words_of_their_own():
    odd = spaces.Dict({"a 'b'": spaces.Text(3), "at": place})
    assert "-s 'env.drop=[\"a '\"'\"'b'" in refusal(Observer, odd, "vectors", 32)
    words = Spelling(
        drop=lambda names: " ".join(f"--drop {name}" for name in names), observe="--observe {}"
    )
    with pytest.raises(PlanetError, match="leave it out, --drop said"):
        Observer("x", MIXED, "both", 32, spelling=words)
    with pytest.raises(PlanetError, match="use --observe pixels"):
        Observer("x", picture, "vectors", 32, spelling=words)


def test_empty_parts_are_left_out_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        observer = Observer("x", spaces.Dict(none=spaces.Box(0, 1, (0,)), at=place), "vectors", 32)
    assert list(observer.spec) == ["at"]
    assert caplog.messages == ["x: its observation none has shape [0] and is left out"]


@pytest.mark.parametrize("shape", [(64, 64, 0), (0, 64, 64)])
def test_a_camera_that_is_off_is_left_out(shape, caplog):
    space = spaces.Dict(eye=picture, off=spaces.Box(0, 255, shape, np.uint8), at=place)
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        assert list(Observer("x", space, "pixels", 32).spec) == ["eye"]
    assert caplog.messages == [f"x: its observation off has shape {list(shape)} and is left out"]
    assert Observer("x", spaces.Dict(off=space["off"], at=place), "pixels", 32).draws


def test_what_shows_nothing_is_called_so():
    assert "gym/X-v0 shows nothing; use env.observe=pixels" in refusal(
        Observer, spaces.Dict(), "vectors", 32
    )


@pytest.mark.parametrize(
    ("space", "there"),
    [
        (spaces.Dict(eye=picture, at=place), True),
        (picture, False),
        (spaces.Text(5), False),
        (spaces.Box(0, 1, (0,)), False),
    ],
)
def test_whether_there_are_vectors_is_known(space, there):
    assert Observer("x", space, "pixels", 32).has_vectors == there


BYTES, UNIT = spaces.Box(0, 255, (32, 32, 3), np.uint8), spaces.Box(0, 1, (32, 32, 3))
FULL = np.ones((32, 32, 3))
LIES = {
    "floats for bytes": (
        BYTES,
        FULL * 0.5,
        "is float64 from 0.5 to 0.5, its space has whole numbers from 0 to 255",
    ),
    "not numbers for bytes": (BYTES, FULL * np.nan, "is float64, its space has whole numbers"),
    "beyond bytes": (
        BYTES,
        np.full(FULL.shape, 300),
        "is int64 from 300 to 300, its space has whole numbers",
    ),
    "switches for bytes": (BYTES, FULL > 0, "is bool, its space has whole numbers"),
    "bytes for floats": (
        UNIT,
        FULL.astype(np.uint8),
        "is uint8 from 1 to 1, its space has floats from 0 to 1",
    ),
    "beyond the bounds": (
        UNIT,
        FULL * 255,
        "is float64 from 255 to 255, its space has floats from 0 to 1",
    ),
    "bytes for 16 bits": (
        spaces.Box(0, 65535, FULL.shape, np.uint16),
        FULL.astype(np.uint8),
        "is uint8 from 1 to 1",
    ),
    "RGBA": (
        BYTES,
        np.zeros((32, 32, 4), np.uint8),
        "has shape [32, 32, 4], its space [32, 32, 3]",
    ),
    "another axis": (BYTES, np.zeros((3, 32, 32), np.uint8), "has shape [3, 32, 32]"),
    "words": (place, "go", "is no array of numbers but str"),
    "ragged": (place, [[1, 2], [3]], "is no array of numbers but list"),
    "none": (place, None, "is no array of numbers but NoneType"),
    "fractions": (
        spaces.Box(0, 9, (2,), np.int64),
        [0.5, 1],
        "is float64 from 0.5 to 1, its space is Box",
    ),
    "beyond 8 bits": (spaces.Box(0, 9, (2,), np.uint8), [300, 1], "is int64 from 1 to 300"),
    "no choice": (spaces.Discrete(3), 3, "is int64 from 3 to 3, its space is Discrete(3)"),
    "a choice below": (spaces.Discrete(3), -1, "is int64 from -1 to -1"),
    "half a choice": (spaces.Discrete(3), 0.5, "is float64 from 0.5 to 0.5"),
    "no switch": (spaces.MultiBinary(2), [0, 2], "is int64 from 0 to 2"),
    "no choices": (spaces.MultiDiscrete([2, 3]), [1, 3], "is int64 from 1 to 3"),
    "nothing of its name": (
        spaces.Dict(at=place),
        {"to": 1},
        "'at' is declared, but not among what was returned",
    ),
    "another nesting": (spaces.Dict(at=place), np.zeros(3), "'at' is declared, but not among"),
}


@pytest.mark.parametrize(("space", "value", "line"), LIES.values(), ids=LIES)
def test_what_comes_is_what_was_declared(space, value, line):
    with pytest.raises(UndeclaredError) as caught:
        Observer(
            "x", space, "pixels" if space in (BYTES, UNIT) or "16" in str(space) else "vectors", 32
        )(value, None)
    assert line in str(caught.value) and str(caught.value).startswith("observation ")


def test_numbers_that_are_not_finite_are_an_accident():
    with pytest.raises(ValueError, match="observation 'image' has NaN or infinity in it") as caught:
        Observer("x", UNIT, "pixels", 32)(FULL * np.nan, None)
    assert not isinstance(caught.value, UndeclaredError)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (BYTES, np.full((32, 32, 3), 200, np.int64)),
        (BYTES, np.full((32, 32, 3), 200, np.uint8).tolist()),
        (UNIT, FULL * 1.004),  # an interpolation's overshoot
        (
            spaces.Box(-1, 1, (3,)),
            [[0, 7, 1]],
        ),  # an axis of 1 more, whole numbers, beyond the bounds
        (spaces.Discrete(3, start=-1), np.array([1])),
        (spaces.MultiBinary(2), [True, False]),
        (spaces.Box(0, 9, (2,), np.int64), [3.0, 1]),
    ],
)
def test_what_means_the_same_is_taken(space, value):
    assert Observer("x", space, "pixels" if space in (BYTES, UNIT) else "vectors", 32)(value, None)


slope = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None] * np.ones((64, 64, 3), np.float32)


@pytest.mark.parametrize(
    ("space", "picture", "what"),
    [
        (spaces.Box(0, 255, (64, 64, 3)), slope, "float32 from 0 to 1, its space has floats"),
        (
            spaces.Box(0, 65535, (64, 64), np.uint16),
            (255 * slope[..., 0]).astype(np.uint16),
            "uint16 from 0 to 255, its space has whole numbers from 0 to 65535",
        ),
        (spaces.Box(0, 255, (64, 64), np.uint8), (slope[..., 0] > 0.5).astype(np.uint8), "uint8"),
    ],
    ids=["floats", "16 bits", "mask"],
)
def test_an_image_that_is_as_good_as_black_is_warned_of_once(space, picture, what, caplog):
    observer = Observer("x", space, "pixels", 32)
    observer(np.zeros_like(picture), None)  # an episode may begin in the dark
    assert not caplog.messages
    for _ in range(2):
        observer(picture, None)
    [line] = caplog.messages
    assert line.startswith(f"x: its image image is {what}")
    assert line.endswith("of 256 levels it has only 0 and 1; declare the bounds that it has")


def test_an_image_that_uses_its_range_is_not_warned_of(caplog):
    Observer("x", spaces.Box(0, 1, (64, 64, 3)), "pixels", 32)(slope, None)
    assert not caplog.messages


def test_what_is_left_out_may_not_be_all():
    with pytest.raises(PlanetError, match="^env.drop: leaves nothing of x, which shows a, b; keep"):
        Observer("x", spaces.Dict(a=place, b=place), "vectors", 32, ("a", "b"))
