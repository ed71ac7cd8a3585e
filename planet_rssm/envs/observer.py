"""What is observed of a Gymnasium space: images and vectors by name, checked as declared."""

import functools
import json
import logging
import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs import pictures
from planet_rssm.envs.pictures import Scale, could_be_picture, described, is_picture, resized
from planet_rssm.envs.spec import chosen
from planet_rssm.envs.subspaces import (
    IMAGE,
    VECTORS,
    Subspace,
    array_of,
    is_empty,
    read,
    subspaces_of,
    vector_of,
)

_OPAQUE = ", of RGBA return the first 3 channels"
_WRAP = "give as env.id=module:Class a wrapper of your own"

_log = logging.getLogger("planet_rssm")

Array = np.ndarray


def dropped(names: Sequence[str]) -> str:
    """Return how the command line leaves observations out, `-s env.drop=a,b`."""
    if all(re.fullmatch(r"[\w./-]+", name) for name in names):
        return f"-s env.drop={','.join(names)}"
    return f"-s {shlex.quote(f'env.drop={json.dumps(list(names))}')}"


def _left_out(part: Subspace) -> bool:
    """Return whether a part holds nothing, as a camera that is off; alone it is refused."""
    return bool(part.path) and is_empty(part.space)


class Spelling(NamedTuple):
    """How error lines write the settings that they advise."""

    drop: Callable[[Sequence[str]], str] = dropped
    observe: str = "env.observe={}"
    live: bool = True  # there is an environment, which can be wrapped and may draw itself


SETTINGS = Spelling()


class Observer:
    """Turns what a Gymnasium environment returns into arrays of fixed shapes.

    `pixels` are its own images if it has any, else the frame that it draws, under the key "image".
    `vectors` are all else that it observes, discrete parts one-hot, under the key "vector"; `both`
    are both. The entries of a Dict or Tuple keep their own names, nested ones joined by dots.
    Images of other numbers than bytes are scaled from their bounds.
    """

    def __init__(
        self,
        task: str,
        space: Space[object],
        observe: str,
        size: int,
        drop: Sequence[str] = (),
        keys: Sequence[str] = (),
        spelling: Spelling = SETTINGS,
    ) -> None:
        """Choose what is observed of `space`.

        Args:
            task: what error lines call the environment.
            space: of its observations.
            observe: pixels, vectors or both.
            size: pixels a side of every image.
            drop: names of what is left out, or of a Dict or Tuple that contains it.
            keys: names of all that is observed, or of what contains it; () for everything.
            spelling: how error lines write what they advise.

        Raises:
            PlanetError: the space has not what is asked for; the line says what would work.
        """
        self._task = task
        self._size = size
        self._spelling = spelling
        kept = self._select(list(subspaces_of(space)), observe, drop, keys)
        own_images = [part for part in kept if is_picture(part.space) and not _left_out(part)]
        # what env.observe=vectors would take
        self.has_vectors = any(
            isinstance(part.space, VECTORS) and not is_empty(part.space)
            for part in kept
            if part not in own_images
        )
        self.draws = observe != "vectors" and not own_images  # the image is the frame that it draws
        images = own_images if observe != "vectors" else []
        self._refuse_pictures(images, len(kept) > len(images))
        self._images = [(part, Scale(part.space)) for part in images]
        self._unchecked = {part.name for part in images}  # until a picture is not uniform
        self._vectors = self._select_vectors(
            [part for part in kept if part not in own_images],
            observe,
            "images only" if own_images else "nothing",
        )
        image_keys = [IMAGE] if self.draws else [part.name for part in images]
        self._refuse_same_names([*image_keys, *(part.name for part in self._vectors)])
        self._log_conversions(kept)
        self.spec: dict[str, tuple[tuple[int, ...], str]]
        self.spec = {
            part.name: ((spaces.flatdim(part.space),), "float32") for part in self._vectors
        }
        self.spec |= {key: ((size, size, 3), "uint8") for key in image_keys}

    def __call__(self, observation: object, frame: Array | None) -> dict[str, Array]:
        """Return the arrays of one observation, all of them new.

        Args:
            observation: what the environment returned.
            frame: its drawing, uint8 [H, W, 3], None where it is not needed.

        Raises:
            UndeclaredError: a part of another shape or of other numbers than its space declares.
            ValueError: NaN or infinity in a part.
        """
        arrays = {part.name: read(part, observation, vector_of) for part in self._vectors}
        for part, scale in self._images:
            to_image = functools.partial(self._image, part, scale)
            arrays[part.name] = read(part, observation, to_image)
        return arrays if frame is None else arrays | {IMAGE: resized(frame, self._size)}

    def blind(self, observation: object) -> dict[str, Array]:
        """Return the same arrays with black images."""
        black = {
            key: np.zeros(shape, np.uint8)
            for key, (shape, dtype) in self.spec.items()
            if dtype == "uint8"
        }
        return black | {part.name: read(part, observation, vector_of) for part in self._vectors}

    def _image(
        self,
        part: Subspace,
        scale: Scale,
        space: Space[object],
        value: object,
    ) -> Array:
        given = array_of(space, value)
        picture = scale(given)
        if part.name in self._unchecked and given.min() < given.max():
            self._unchecked.remove(part.name)
            if picture.max() - picture.min() <= 1:
                _log.warning(
                    "%s: its image %s is %s, its space has %s: of 256 levels it has only "
                    "%d and %d; declare the bounds that it has",
                    self._task,
                    part.name,
                    described(given),
                    scale,
                    picture.min(),
                    picture.max(),
                )
        return resized(pictures.channels_last(picture), self._size)

    def _select(
        self, parts: list[Subspace], observe: str, drop: Sequence[str], keys: Sequence[str]
    ) -> list[Subspace]:
        """Return what is not left out by name."""
        own = [part.name for part in parts]
        drawn = [IMAGE] if observe != "vectors" and IMAGE not in own else []
        names = chosen(self._task, [*own, *drawn], drop, keys)
        kept = [part for part in parts if part.name in names]
        unwanted = IMAGE not in names and (drawn or keys)
        if observe != "vectors" and unwanted and not any(is_picture(part.space) for part in kept):
            raise PlanetError(
                f"env.{'keys' if keys else 'drop'}: leaves no image of {self._task} "
                f"(what it draws is {IMAGE!r}), but env.observe = {observe!r} needs one; "
                f"use {self._use('vectors')}"
            )
        if own and not kept and (observe == "vectors" or not self._spelling.live):
            raise PlanetError(
                f"env.{'keys' if keys else 'drop'}: leaves nothing of {self._task}, which shows "
                f"{', '.join(own)}; keep one"
            )
        return kept

    def _select_vectors(
        self, parts: list[Subspace], observe: str, otherwise: str
    ) -> list[Subspace]:
        """Return the parts that make vectors, if they are asked for; empty ones are left out."""
        if observe == "pixels":
            return []
        full = [part for part in parts if not is_empty(part.space)]
        unusable = [part for part in full if not isinstance(part.space, VECTORS)]
        if unusable or (parts and not full):
            line = self._why_no_vector(unusable or parts, len(unusable) < len(full))
            raise PlanetError(f"env.id = {self._task!r}: {line}")
        if not full:
            raise PlanetError(
                f"env.observe = {observe!r}: {self._task} shows {otherwise}; "
                f"use {self._use('pixels')}"
            )
        return full

    def _why_no_vector(self, unusable: list[Subspace], others: bool) -> str:
        """Return why some parts cannot be observed, and what can be done if there are `others`."""
        first = unusable[0]
        named = first.name if first.path else "its observation"
        what = f"{named} is a {type(first.space).__name__} space that makes no vector"
        without = f"leave it out, {self._spelling.drop([part.name for part in unusable])}"
        ways = [without] if others else [f"use {self._use('pixels')}"] * self._spelling.live
        return f"{what}; {', or '.join([*ways, _WRAP])} that has another"

    def _refuse_pictures(self, images: list[Subspace], others: bool) -> None:
        for part in images:
            without = ""
            if others or self._spelling.live:
                without = f", or leave it out, {self._spelling.drop([part.name])}"
            if not pictures.is_one(part.space):
                raise PlanetError(
                    f"env.id = {self._task!r}: its images have shape "
                    f"{list(part.space.shape or ())}, must be [H, W], [H, W, 3], [3, H, W] "
                    "or have 1 channel; take its frame-stacking wrapper off, the model has a "
                    f"memory of its own{_OPAQUE if 4 in (part.space.shape or ()) else ''}{without}"
                )
            if not pictures.is_bounded(part.space):
                raise PlanetError(
                    f"env.id = {self._task!r}: its image {part.name} has {Scale(part.space)}; "
                    f"declare its pixels' bounds in observation_space, as 0 and 1{without}"
                )

    def _refuse_same_names(self, names: list[str]) -> None:
        if twice := {name for name in names if names.count(name) > 1}:
            raise PlanetError(
                f"env.id = {self._task!r}: has more than one observation {twice.pop()!r}; "
                f"{_WRAP} with other names"
            )

    def _log_conversions(self, kept: list[Subspace]) -> None:
        """Log what is scaled, left out, or taken as a vector though it looks like an image."""
        for part, scale in self._images:
            if not scale.plain:
                _log.info(
                    "%s: its image %s has %s, scaled to 0 to 255", self._task, part.name, scale
                )
        for part in kept:
            shape = list(part.space.shape or ())
            if is_empty(part.space):
                _log.info(
                    "%s: its observation %s has shape %s and is left out",
                    self._task,
                    part.name,
                    shape,
                )
            elif could_be_picture(part.space) and not is_picture(part.space):
                why = "small" if pictures.is_bounded(part.space) else "without bounds"
                _log.info(
                    "%s: its observation %s, %s and %s, is a table, not an image",
                    self._task,
                    part.name,
                    shape,
                    why,
                )

    def _use(self, observe: str) -> str:
        return self._spelling.observe.format(observe)
