"""Settings trees, override strings and settings files."""

import json
import math

import yaml
from hypothesis import given
from hypothesis import strategies as st

from planet_rssm import config
from planet_rssm.envs import registry

DEFAULTS = config.flatten(config.Settings())
KEYS = st.sampled_from(sorted(DEFAULTS))
ODD_TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "1e6",
        "1e999",
        "-0",
        "yes",
        "~",
        "0x1F",
        "1:30",
        "2024-13-45",
        "!!int x",
        "!!binary aGk=",
        "&a [*a]",
        "\x85",
        "\ud800",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | ODD_TEXT
    | st.binary(max_size=4)
    | st.dates()
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=5,
)


def near(value):
    """Values like the default: most are in range."""
    if isinstance(value, dict):
        named = st.sampled_from(["mode", "n", "render_mode", "a.b"])
        return st.dictionaries(
            named, st.none() | st.booleans() | st.integers() | ODD_TEXT, max_size=2
        )
    if isinstance(value, tuple):
        return st.lists(st.sampled_from([*value, "image", "my_module:Class", 4]), max_size=3)
    if isinstance(value, str) or value is None:
        return st.sampled_from(
            [
                "cem",
                "icem",
                "plain",
                "balanced",
                "raycast",
                "none",
                "float32",
                "both",
                "cpu",
                None,
                4,
            ]
        )
    if isinstance(value, int):
        return st.integers(0, 2 * value + 2) | st.sampled_from([32, 64, 96, 128, 1.0, "2e1"])
    return st.floats(0, 2 * value + 1) | st.sampled_from(["1e-3", 1, 0])


TREES = st.lists(KEYS, max_size=6, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: near(DEFAULTS[key]) | JUNK for key in keys})
)


def equal(given, taken):
    """What was taken is what was given: as it is, or the number that its text spells."""
    if isinstance(taken, float) or (isinstance(given, str) and not isinstance(taken, str)):
        return float(given) == taken and not isinstance(given, bool)
    if isinstance(given, bytes):
        return given.decode() == taken
    if isinstance(taken, tuple):  # of names, which may be written in one text, and be numbers
        parts = (
            given.split(",")
            if isinstance(given, str)
            else given
            if isinstance(given, list | tuple)
            else [given]
        )
        return (
            tuple(str(part).strip() if isinstance(given, str) else str(part) for part in parts)
            == taken
        )
    if isinstance(taken, dict):
        return given.keys() == taken.keys() and all(equal(given[key], taken[key]) for key in given)
    return given == taken and isinstance(given, bool) == isinstance(taken, bool)


def check_accepted(settings, folder):
    """Accepted settings are in range and read back as they are, from a file and from overrides."""
    path = folder / "mine.yaml"
    config.save(settings, path)
    assert config.load(path) == settings
    assert config.resolve(config.flatten(settings)) == settings
    flat = config.flatten(settings)
    assert all(math.isfinite(value) for value in flat.values() if isinstance(value, float))
    assert flat["planner.elites"] <= flat["planner.candidates"]
    assert config.SMALLEST <= flat["env.size"] <= config.LARGEST


@given(TREES | st.dictionaries(KEYS | ODD_TEXT | SCALARS, JUNK, max_size=3))
def test_a_tree_is_refused_or_taken_as_it_is(folder, refused, values):
    with refused() as errors:
        settings = config.resolve(values)
    if not errors:
        flat = config.flatten(settings)
        assert all(equal(value, flat[key]) for key, value in values.items())
        check_accepted(settings, folder)


YAML_TEXT = JUNK.map(lambda value: yaml.dump(value).removesuffix("\n...\n")) | ODD_TEXT
YAML_TEXT |= st.text("[]{}:-,&*!|>'\"# \n1ae.", max_size=12)


def lines(between):
    """Return lines of key and value: half of them sound, the others of whatever."""
    sound = KEYS.flatmap(
        lambda key: near(DEFAULTS[key]).map(lambda value: f"{key}{between}{json.dumps(value)}")
    )
    return (
        sound
        | sound
        | st.builds(
            "{}{}{}".format, KEYS | ODD_TEXT, st.sampled_from([between, " = ", ":"]), YAML_TEXT
        )
    )


@given(st.lists(lines("=") | st.text(), min_size=1, max_size=3))
def test_override_texts_are_refused_or_taken_as_yaml_reads_them(folder, refused, texts):
    with refused() as errors:
        settings = config.load("planet", texts)
    if not errors:
        flat = config.flatten(settings)
        for key, value in config.parse_overrides(texts).items():
            assert equal(value, flat[key])
        check_accepted(settings, folder)


FILES = st.lists(lines(": ") | st.text(max_size=5), max_size=4).map(
    lambda lines: "\n".join(lines).encode(errors="surrogatepass")
)


@given(FILES | st.binary(max_size=40))
def test_a_file_is_refused_or_read_completely(folder, refused, data):
    path = folder / "given.yaml"
    path.write_bytes(data)
    with refused() as errors:
        settings = config.load(path)
    if not errors:
        check_accepted(settings, folder)


NAMES = st.sampled_from(registry.task_ids()) | st.text(max_size=20)
IDS = NAMES | st.tuples(
    st.sampled_from(["", "dmc/", "dmc_", "dmc-", "gym/", "gym/os:", "os:", "DMC/", " "]),
    NAMES,
    st.sampled_from(["", " ", "-", "\n", ".", "/"]),
).map("".join)
IDS |= NAMES.flatmap(
    lambda name: st.sampled_from(
        [name.upper(), name.replace("-", "_"), name.removeprefix("dmc/"), name[:-1]]
    )
)


@given(IDS)
def test_a_task_id_is_refused_or_means_one_task(refused, text):
    with refused() as errors:
        canonical = registry.canonical_id(text)
    if not errors:
        assert registry.canonical_id(canonical) == canonical
        if canonical != text:  # Gymnasium's and classes stay as they are
            assert canonical in registry.task_ids()
            last = canonical.partition("/")[2].replace("-", "_").lower()
            assert last in text.replace("-", "_").lower() or "cup" in text
