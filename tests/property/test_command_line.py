"""Words on the command line: exit code 0, or one line that was meant; none starts anything."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planet_rssm import config
from planet_rssm.cli.main import VERBS, main

# what a shell can pass: no NUL, and bytes that are not UTF-8 as surrogates
WORD = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
) | st.sampled_from(
    [
        "",
        "-",
        "--",
        "-s",
        "--help",
        "x" * 300,
        "x" * 5000 + ".yaml",
        "a\nb",
        "\udcff",
        "../..",
        "/",
        "-1",
        "1e3",
        "nan",
    ]
)
SETTING = st.builds(
    "{}={}".format, st.sampled_from(sorted(config.flatten(config.Settings()))) | WORD, WORD
)
PRESET = st.sampled_from(["planet", "quickstart"]) | WORD | WORD.map("{}.yaml".format)
MORE = st.lists(
    SETTING.flatmap(lambda text: st.sampled_from([["-s", text], [text]]))
    | WORD.map(lambda word: [word]),
    max_size=2,
)
OPTIONS = st.lists(
    st.sampled_from(
        [
            "--resume",
            "--json",
            "--dry-run",
            "--updates",
            "--seed",
            "--device",
            "--run-dir",
            "--checkpoint",
        ]
    )
    | WORD,
    max_size=3,
)
MISSING = [
    "--offline",
    "--data",
    "there-is-no-such-folder",
]  # what is refused in any case starts nothing
LINES = (
    st.builds(lambda preset, more: ["config", preset, *sum(more, [])], PRESET, MORE)
    | st.builds(
        lambda preset, more, options: ["train", *MISSING, preset, *sum(more, []), *options],
        PRESET,
        MORE,
        OPTIONS,
    )
    | st.builds(lambda run, options: ["plan", run, *options], WORD, OPTIONS)
    | st.builds(
        lambda source, more: ["minari", "import", source, "--out", "out", *more], WORD, OPTIONS
    )
    | st.builds(lambda folder, name: ["minari", "export", folder, name], WORD, WORD)
    | st.builds(
        lambda source, more: ["data", "import", source, "--out", "out", *more], WORD, OPTIONS
    )
    | st.builds(
        lambda task, policy: [
            "collect",
            f"no/{task}",
            "--policy",
            policy,
            "--episodes",
            "1",
            "--out",
            "out",
        ],
        WORD,
        WORD,
    )
    | st.lists(WORD, min_size=1, max_size=2).filter(lambda words: words[0] not in VERBS)
)


@pytest.fixture(scope="module")
def nowhere(folder):
    """A process that stands in an empty folder, and Minari's too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        yield


@given(LINES)
def test_any_words_end_well_or_in_one_line(nowhere, words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    printed = err.getvalue()
    assert code in (0, 1, 2), printed
    if code:
        assert len(printed.splitlines()) == 1, printed
        assert printed.startswith("planet: ")
        assert "(unexpected:" not in printed, printed
