"""Typed, frozen, validated settings; presets, overrides, load and save.

A settings file is a flat YAML mapping from dotted keys to values, the same keys that `-s key=value`
takes. The sections and their defaults are in env.py, model.py, behavior.py, planner.py and
schema.py.
"""

from planet_rssm.config.behavior import RECIPES, BehaviorSettings
from planet_rssm.config.env import (
    LARGEST,
    SMALLEST,
    DataSettings,
    EnvSettings,
    FirstAction,
    is_dm_control,
    spelling,
)
from planet_rssm.config.files import nearest, presets, upgraded
from planet_rssm.config.model import (
    HEADS,
    LATENTS,
    SIZES,
    Head,
    KLSettings,
    ModelSettings,
    OptimizerSettings,
    RSSMSettings,
    Size,
    patch_sides,
    v3_layers,
)
from planet_rssm.config.planner import PLANNERS, PlannerSettings, learned_parts, no_actor
from planet_rssm.config.schema import FORMAT, Settings, TrainSettings
from planet_rssm.config.sources import (
    ACTING,
    dump,
    flatten,
    imported,
    load,
    override,
    parse_overrides,
    refuse_unused,
    resolve,
    save,
    sized,
    with_planner,
)
from planet_rssm.config.values import Activation, Norm

__all__ = [
    "ACTING",
    "Activation",
    "BehaviorSettings",
    "DataSettings",
    "EnvSettings",
    "FORMAT",
    "HEADS",
    "Head",
    "FirstAction",
    "KLSettings",
    "LARGEST",
    "LATENTS",
    "PLANNERS",
    "ModelSettings",
    "Norm",
    "OptimizerSettings",
    "PlannerSettings",
    "RECIPES",
    "RSSMSettings",
    "SIZES",
    "SMALLEST",
    "Settings",
    "Size",
    "TrainSettings",
    "dump",
    "flatten",
    "imported",
    "is_dm_control",
    "spelling",
    "learned_parts",
    "load",
    "nearest",
    "no_actor",
    "override",
    "parse_overrides",
    "patch_sides",
    "presets",
    "refuse_unused",
    "resolve",
    "save",
    "sized",
    "upgraded",
    "v3_layers",
    "with_planner",
]
