"""`planet push`: a run as a model at the Hugging Face Hub, in one commit."""

import re

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.text import one_line
from planet_rssm.hub.card import card
from planet_rssm.hub.parcel import CARD, EVAL, FILM, Parcel
from planet_rssm.runs.hub import TAKEN, api

# what a push writes; of an earlier one, what this one has not is deleted
OURS = re.compile(rf"{TAKEN.pattern}|{re.escape(EVAL)}|{FILM}\.(mp4|gif)", re.ASCII)


def contents(parcel: Parcel) -> dict[str, bytes]:
    """Return every file that is sent, by its name there; the card is written last."""
    return {CARD: card(parcel).encode(), **parcel.files}


def push(parcel: Parcel, *, private: bool = False) -> str:
    """Send a run in one commit, into a model that is made if it is not there; return its address.

    Other files there stay; those of an earlier push that this one has not are deleted, and the
    Hub keeps their history.

    Raises:
        PlanetError: the Hub refuses or cannot be reached, or it is to be `private` and a public
            one is there.
    """
    name = parcel.repo
    hub = api(f"push to {name}")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, errors

    files = contents(parcel)
    try:
        hub.create_repo(name, private=private or None, exist_ok=True)
        there = hub.model_info(name)
        if private and not there.private:
            raise PlanetError(
                f"push to {name}: --private, and it is there and public; nothing sent"
            )
        names = [one.rfilename for one in there.siblings or []]
        old = [path for path in names if OURS.fullmatch(path) and path not in files]
        done = hub.create_commit(
            name,
            [
                *(CommitOperationAdd(path, data) for path, data in files.items()),
                *(CommitOperationDelete(path) for path in old),
            ],
            commit_message=f"{parcel.settings.env.id}, {parcel.checkpoint.progress['env_steps']} "
            "env_steps, by planet push",
            parent_commit=there.sha,
        )
        return str(done.commit_url)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        why = {
            401: "it knows no valid token here: hf auth login",
            403: "you may not write there: log in as its owner, or give another OWNER/NAME",
            404: "you may not write there, or are not logged in: hf auth login",
            412: "somebody else has changed it meanwhile; try again",
        }.get(status, one_line(str(error)))
        raise PlanetError(f"push to {name}: the Hub refuses ({status}), {why}") from None
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        raise PlanetError(
            f"push to {name}: the Hub cannot be reached ({type(error).__name__}); nothing was "
            "sent, try again with a network"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        why = one_line(str(error.__cause__ or error))
        raise PlanetError(f"push to {name}: not sent ({why})") from None
