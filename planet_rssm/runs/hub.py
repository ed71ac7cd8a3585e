"""Runs at the Hugging Face Hub: `hf:OWNER/NAME[@REVISION]`, brought into the Hub's own cache.

Only files that a run has are taken, by their names and up to a size: settings, a record, baselines
and checkpoints. None of them is a pickle or code. What the Hub says of a file is compared with what
came.
"""

import functools
import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import SMALL
from planet_rssm.base.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"
MOST = 1 << 33  # bytes of a checkpoint that is brought here
MOST_FILES = 64
TAKEN = re.compile(
    r"config\.yaml|run\.json|baselines\.json|checkpoints/([0-9]{10,16}|best)\.safetensors",
    re.ASCII,
)
_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}\w)?"
REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_NAME = re.compile(rf"{PREFIX}({REPO.pattern})(?:@([A-Za-z0-9][\w./-]{{0,127}}))?", re.ASCII)
_WAIT = 10.0  # seconds for an answer of the Hub
_log = logging.getLogger("planet_rssm")


class _File(NamedTuple):
    name: str
    size: int  # bytes
    sha256: str | None  # None: a small one, of which the Hub keeps none


def check_repo(repo: str, usage: str) -> None:
    """Refuse what is no OWNER/NAME.

    Raises:
        PlanetError: it is none; `usage` begins the line.
    """
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise PlanetError(f"{usage}: must be OWNER/NAME, of letters, digits, . _ and -")


def api(what: str) -> "HfApi":
    """Return what talks to the Hub, without bars of its own; `what` begins the line of an error.

    Raises:
        PlanetError: the extra `hub` is not installed.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars
    except ModuleNotFoundError:
        raise PlanetError(
            f"{what}: huggingface_hub is not installed; pip install 'planet-rssm[hub]'"
        ) from None
    disable_progress_bars()
    return HfApi(library_name="planet_rssm")


@functools.cache
def fetched(name: str) -> Path:
    """Return a folder that has the files of the run `hf:OWNER/NAME[@REVISION]`.

    They come from the Hub once for each revision; without a network a copy that is here is taken,
    and a line says so. A process asks once for each name.

    Raises:
        PlanetError: no such model, it is no run, a file is too large or not as the Hub describes
            it, or the Hub cannot be reached and there is no copy.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise PlanetError(f"{name}: must be {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    repo, revision = match[1], match[2] or "main"
    hub = api(name)
    from huggingface_hub import errors

    try:
        return _brought(hub, name, repo, revision)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500:
            return _copy(name, repo, revision, f"it says {status}")
        why = next(
            (words for kind, words in _refusals().items() if isinstance(error, kind)),
            f"the Hub does not give it ({status}); log in, or try again later",
        )
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        return _copy(name, repo, revision, type(error).__name__)
    except OSError as error:
        why = f"not brought here ({one_line(str(error))}); try again"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"the answer is not a Hub's ({one_line(str(error))}); look at HF_ENDPOINT"
    raise PlanetError(f"{name}: {why}") from None


def _refusals() -> dict[type[Exception], str]:
    from huggingface_hub import errors

    return {
        errors.GatedRepoError: "its owner decides who has it; ask for access on its page",
        errors.RepositoryNotFoundError: "no such model, or it is private: hf auth login",
        errors.RevisionNotFoundError: "it has no such revision; give another",
    }


def _brought(hub: "HfApi", name: str, repo: str, revision: str) -> Path:
    """Return the folder of the run's files, which come here if they are not."""
    info = hub.model_info(repo, revision=revision, files_metadata=True, timeout=_WAIT)
    sha = str(info.sha)
    files = _wanted(name, info.siblings or [])
    new = sum(file.size for file in files if not _is_here(repo, file.name, sha))
    if new:
        _log.info("%s: revision %.8s, brings %.1f MB here", name, sha, new / 1e6)
    paths = [
        _checked(name, file, Path(hub.hf_hub_download(repo, file.name, revision=sha)))
        for file in files
    ]
    if sha != revision:  # so that the revision's name is known without a network too
        hub.hf_hub_download(repo, files[0].name, revision=revision)
    return paths[0].parents[files[0].name.count("/")]  # each lies under its name


def _wanted(name: str, listed: Sequence[object]) -> list[_File]:
    """Return the files of a run among those that the Hub lists, each with a size it may have."""
    files = []
    for one in listed:
        path, size = str(getattr(one, "rfilename", "")), getattr(one, "size", None)
        if not TAKEN.fullmatch(path):
            continue
        most = MOST if path.endswith(".safetensors") else SMALL
        if type(size) is not int or not 0 <= size <= most:
            raise PlanetError(f"{name}: {path} has {size} bytes, at most {most} are taken")
        files.append(_File(path, size, getattr(getattr(one, "lfs", None), "sha256", None)))
    if len(files) > MOST_FILES:
        raise PlanetError(f"{name}: {len(files)} files, at most {MOST_FILES} are taken")
    if not any(file.name.startswith("checkpoints/") for file in files):
        raise PlanetError(
            f"{name}: not a run, none of its {len(listed)} files is a checkpoint of planet_rssm; "
            "`planet push` sends one"
        )
    return files


def _is_here(repo: str, file: str, sha: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file, revision=sha), str)


def _checked(name: str, file: _File, path: Path) -> Path:
    """Return `path` if its bytes are those that the Hub described."""
    intact = path.stat().st_size == file.size
    if intact and file.sha256 is not None:
        with path.open("rb") as read:
            intact = hashlib.file_digest(read, "sha256").hexdigest() == file.sha256
    if not intact:
        path.resolve().unlink()  # so that the next call brings it again
        path.unlink(missing_ok=True)
        raise PlanetError(
            f"{name}: {file.name} is not as the Hub has it, cut or damaged; it was deleted here, "
            "the same command gets it again"
        )
    return path


def _copy(name: str, repo: str, revision: str, error: str) -> Path:
    """Return the folder with what an earlier call brought here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise PlanetError(
            f"{name}: the Hub cannot be reached ({error}), and there is no copy here; try again "
            "with a network"
        ) from None
    _log.warning("%s: the Hub cannot be reached, takes the copy here, %.8s", name, folder.name)
    return folder
