"""Actions that are choices: one one-hot vector a group, side by side.

`groups` is the number of choices in each group, (3, 2) of an action [5]; one choice alone is one
group, and actions that are numbers have none, ().
"""

import numpy as np

Array = np.ndarray
Groups = tuple[int, ...]
# choices of all groups together, at most: each is a float32 in every step that is kept and planned
MOST = 8192


def places(action: Array, groups: Groups) -> Array:
    """Return which choice is the largest in each group, int [*B, G], of `action` [*B, A]."""
    parts = np.split(action, np.cumsum(groups)[:-1], -1)
    return np.stack([part.argmax(-1) for part in parts], -1)


def from_places(index: Array, groups: Groups) -> Array:
    """Return float32 [*B, A], one-hot in each group, of the choices `index` [*B, G]."""
    sizes = np.array(groups)
    action = np.zeros((*index.shape[:-1], int(sizes.sum())), np.float32)
    np.put_along_axis(action, index + sizes.cumsum() - sizes, 1, -1)
    return action


def one_hot(action: Array, groups: Groups) -> Array:
    """Return float32 [*B, A]: 1 at the largest entry of each group of `action` [*B, A], else 0."""
    return from_places(places(action, groups), groups)
