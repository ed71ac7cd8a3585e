"""Episodes that `planet data export` wrote, as they were."""

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.foreign.source import Prepare, Source
from planet_rssm.datasets.foreign.wish import Wish
from planet_rssm.envs.choices import from_places, places
from planet_rssm.envs.spec import EnvSpec


class Own:
    """A set of another format whose numbers are ours, with what the export noted beside them.

    Raises:
        PlanetError: what it noted is damaged, or the user asked for other numbers.
    """

    def __init__(self, source: Source, wish: Wish) -> None:
        """Read what the export noted of the set."""
        if asked := next(iter(wish.asked()), None):
            option = {"keys": "key"}.get(asked, asked).replace("_", "-")
            raise PlanetError(
                f"{source.name}: an export of planet, taken as it was; leave out --{option}"
            )
        self._source = source
        noted: Json = source.ours or {}
        try:
            self.spec = EnvSpec.from_json(noted["env"])
            self._columns = {str(ours): str(theirs) for ours, theirs in noted["columns"].items()}
            self._reward = str(noted["reward"])
        except (LookupError, TypeError, ValueError, AttributeError):
            raise PlanetError(
                f"{source.name}: what the export noted is damaged; export it again"
            ) from None
        names = {*self._columns.values(), "action", self._reward}
        if missing := names - source.columns.keys():
            raise PlanetError(f"{source.name}: has no column {min(missing)}; export it again")

    def episode(self, index: int) -> Episode:
        """Return an episode as it was.

        Raises:
            PlanetError: the files are damaged.
        """
        wanted: dict[str, Prepare | None] = dict.fromkeys(
            [*self._columns.values(), "action", self._reward]
        )
        data = self._source.read(index, wanted)
        first = slice(1, None) if self._source.order == "arrived" else slice(None, -1)
        try:
            noted = self._source.noted(index)
            action = np.asarray(data["action"][first], np.float32)
            action = action.reshape(-1, self.spec.action_size)
            if self.spec.groups:
                action = from_places(places(action, self.spec.groups), self.spec.groups)
            return Episode.from_transitions(
                {
                    ours: data[theirs].reshape(len(data[theirs]), *self.spec.observation[ours][0])
                    for ours, theirs in self._columns.items()
                },
                action,
                np.asarray(data[self._reward][first], np.float32),
                terminated=bool(noted["terminated"]),
                truncated=bool(noted["info"]["truncated"]),
                info=noted["info"],
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise PlanetError(
                f"{self._source.label(index)}: is not as it was exported ({error!r})"
            ) from None

    def facts(self) -> Json:
        """Return what will be written."""
        return {
            "source": self._source.name,
            "format": self._source.format,
            "exported": True,
            "episodes": len(self._source.lengths),
            "frames": sum(self._source.lengths),
            "observation": {k: list(shape) for k, (shape, _) in self.spec.observation.items()},
            "guessed": [],
        }

    def lines(self) -> list[str]:
        """Return the same as text."""
        lost = ", but for what the films lost" if self._source.filmed else ""
        return [
            f"{self._source.name}: {self._source.format}, exported by planet, "
            f"{len(self._source.lengths)} episodes, {sum(self._source.lengths)} frames of "
            f"{self.spec.id}, taken as they were{lost}"
        ]
