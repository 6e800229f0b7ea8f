"""A whole configuration: a tree of settings, and one flat table of them by name."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from mupc.settings.datasets import DATASETS, DatasetKind, Digits
from mupc.settings.mlp import ResidualMLP
from mupc.settings.network import PARAMETERISATIONS, NetworkKind
from mupc.settings.networks import NETWORKS
from mupc.settings.optimisers import OPTIMISERS, SCHEDULES, AdamOptimiser, OptimiserKind
from mupc.settings.predictive_coding import PredictiveCodingRule
from mupc.settings.rule import LIKELIHOODS, REGIMES, RuleKind
from mupc.settings.rules import RULES
from mupc.settings.setting import ConfigError, Kept, Kind, Section, Setting, group_of
from mupc.settings.solvers import SOLVERS
from mupc.settings.starts import STARTS
from mupc.settings.training import RunKeeping, Training

KINDS: dict[str, dict[str, type[Kind]]] = {
    kinds[0].slot: {kind.kind: kind for kind in kinds}
    for kinds in cast(
        tuple[tuple[type[Kind], ...], ...],
        (
            NETWORKS,
            PARAMETERISATIONS,
            DATASETS,
            RULES,
            LIKELIHOODS,
            REGIMES,
            SOLVERS,
            STARTS,
            OPTIMISERS,
            SCHEDULES,
        ),
    )
}
"""Every kind that can be chosen, by what it is a kind of and by name."""

REQUIRED = {
    name
    for kinds in KINDS.values()
    for kind in kinds.values()
    for name, field in kind.own_fields().items()
    if field.is_required()
}
"""Settings without a default, which are to be given with the kind that they belong to."""

_SECTIONS: dict[str, type[Section]] = {"training": Training, "run": RunKeeping}
TABLES = (*KINDS, *_SECTIONS)
"""Names of the tables of settings."""


class Configuration(Setting):
    """All settings of a run."""

    network: NetworkKind = ResidualMLP()
    dataset: DatasetKind = Digits()
    rule: RuleKind = PredictiveCodingRule()
    optimiser: OptimiserKind = AdamOptimiser()
    training: Training = Training()
    run: RunKeeping = RunKeeping()

    def flat(self) -> dict[str, Any]:
        """Return every setting by its name, the kinds that are chosen among them."""
        values: dict[str, Any] = {}
        for name, group in self.groups():
            values |= {name: group.kind} if isinstance(group, Kind) else {}
            values |= group.values()
        return values

    def tables(self) -> dict[str, Any]:
        """Return the settings as nested tables, as files hold them."""
        return _table(self)

    def changed(self, values: Mapping[str, Any], *, checked: bool = True) -> "Configuration":
        """Return the configuration with some settings, by name, given anew.

        Another kind begins with its own defaults: what was set of the one before it goes. What it
        brings for other settings gives way to what is given now, and to what is no default; what
        kinds that stay bring for it holds.

        Args:
            values: settings, by name.
            checked: whether the whole must go together; False before further changes.

        Raises:
            ConfigError: if there is no such setting here, or the whole cannot be run.
        """
        given = {name.replace("-", "_"): value for name, value in values.items()}
        used: set[str] = set()
        now, usual = self.flat(), Configuration().flat()
        for _, group in self.groups():  # what the default configuration does not have
            usual = {n: type(group).default(n) for n in group.values()} | usual
        chosen = {slot: _kind_of(slot, given[slot]) for slot in KINDS.keys() & given.keys()}
        kept = {n: v for n, v in now.items() if n not in self._leaving(chosen)}
        staying = {n: v for n, v in self._standing(chosen).items() if n not in kept}
        brought = staying | _brought(chosen, now)
        values = {n: v for n, v in brought.items() if n not in kept or kept[n] == usual.get(n)}
        values |= given
        config = cast(Configuration, _changed(Configuration, self, values, used))
        for name in given:
            if name not in used:
                raise _unknown(name, config)
        if checked:
            for _, group in config.groups():
                group.check(config)
        return config

    def _leaving(self, chosen: Mapping[str, type[Kind] | None]) -> set[str]:
        """Return the settings of kinds that others take the place of."""
        left: set[str] = set()
        for slot, group in self.groups():
            if chosen.get(slot, type(group)) is not type(group):
                left |= group.values().keys()
                for name, inner in group.groups():
                    left |= {name, *inner.values()}
        return left

    def _standing(self, chosen: Mapping[str, type[Kind] | None]) -> dict[str, Any]:
        """Return what kinds that stay bring."""
        found: dict[str, Any] = {}
        for slot, group in self.groups():
            if isinstance(group, Kind) and chosen.get(slot, type(group)) is type(group):
                found |= group.brings
        return found

    def places(self) -> dict[str, str]:
        """Return the table in which each setting stands, by name."""
        return {field: name for name, group in self.groups() for field in group.own_fields()}

    def carrying(self, mark: type) -> set[str]:
        """Return the settings that carry a mark: `Traced`, `Kept` or `Located`."""
        return {name for _, group in self.groups() for name in group.marked(mark)}

    def identity(self) -> dict[str, Any]:
        """Return the settings that make the run, by name; none that is without effect."""
        left_out = self.carrying(Kept) | (self.training.values().keys() - self.training.shown())
        return {name: value for name, value in self.flat().items() if name not in left_out}

    def moved(self, place: str | None) -> "Configuration":
        """Return the configuration with its data at another place.

        Raises:
            ConfigError: if that is no place for data of their kind.
        """
        if place is None:
            return self
        if not (settings := self.dataset.moved(place)):
            raise ConfigError(
                f"`data`: {place} is no place of the data set {self.dataset.kind}: name a file for "
                "data in a file, a folder for data in a folder, and nothing for digits"
            )
        return self.changed(settings)

    def program(self) -> tuple[object, ...]:
        """Return what decides the compiled training step: all but numbers, and how it is kept."""
        kept = self.carrying(Kept)
        found: list[object] = []
        for name, group in self.groups():
            own = {n: v for n, v in group.structure().items() if n not in kept}
            found.append((name, type(group), tuple(own.items())))
        return tuple(found)

    @property
    def label(self) -> str:
        """A name made of the settings that a reader looks for first."""
        network = self.network
        sizes = "x".join(str(getattr(network, name)) for name in network.sizes)
        laws = f"{network.parameterisation.kind}-{self.rule.kind}"
        kind = "" if isinstance(network, ResidualMLP) else f"{network.kind}-"
        return f"{self.dataset.label}-{kind}{laws}-{sizes}-seed{self.training.seed}"


def _table(group: Setting) -> dict[str, Any]:
    table: dict[str, Any] = {"kind": group.kind} if isinstance(group, Kind) else {}
    for name, value in group.shown().items():
        if value is not None:
            table[name] = list(value) if isinstance(value, tuple) else value
    # Plain values first: in TOML a table ends where the next begins.
    for name in type(group).model_fields:
        if isinstance(inner := getattr(group, name), Setting):
            table[name] = _table(inner)
    return table


def _changed(
    group: type[Setting], current: Setting | None, given: Mapping[str, Any], used: set[str]
) -> Setting:
    """Return a group with what is given anew; its defaults are those of `current`, or its own."""
    values: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, field in group.model_fields.items():
        inner = group_of(field)
        if inner is None:
            if name in given:
                own[name] = given[name]
                used.add(name)
            elif current is not None:
                values[name] = getattr(current, name)
            continue
        default = cast(Setting, field.default if current is None else getattr(current, name))
        kind, known = type(default), given
        if issubclass(inner, Kind) and name in given:
            used.add(name)
            kind, more = _chosen(inner, given[name])
            known = {**given, **more}
        values[name] = _changed(kind, default if kind is type(default) else None, known, used)
    return group.checked(group.merged(values, own))


def _chosen(base: type[Kind], name: object) -> tuple[type[Kind], dict[str, Any]]:
    """Return the kind of a name, and the settings that the name itself gives."""
    kinds = KINDS[base.slot]
    if isinstance(name, str):
        if name in kinds:
            return kinds[name], {}
        if (short := base.shorthand(name)) is not None:
            return kinds[short[0]], short[1]
    hint = _nearest(str(name), kinds)
    raise ConfigError(f"`{base.slot}` must be one of {', '.join(kinds)}, not {name}{hint}")


def _kind_of(slot: str, name: object) -> type[Kind] | None:
    """Return the kind that a name, or what stands for one, chooses; None if there is no such."""
    kinds = KINDS[slot]
    short = next(iter(kinds.values())).shorthand(str(name))
    return kinds.get(str(name) if short is None else short[0])


def _brought(chosen: Mapping[str, type[Kind] | None], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what kinds bring for other settings that take the place of another."""
    found: dict[str, Any] = {}
    for slot in KINDS:  # in order: a rule knows better than a network
        kind = chosen.get(slot)
        found |= {} if kind is None or kind.kind == now.get(slot) else kind.brings
    return found


@dataclasses.dataclass(frozen=True)
class Owner:
    """A kind that has a setting."""

    slot: str
    kind: str


def owners(name: str) -> Iterator[Owner]:
    """Yield the kinds that have a setting of this name."""
    for slot, kinds in KINDS.items():
        for kind, group in kinds.items():
            if name in group.model_fields:
                yield Owner(slot, kind)


def known_names() -> list[str]:
    """Return the names of all settings, of every kind."""
    groups: list[type[Setting]] = list(_SECTIONS.values())
    groups += [kind for kinds in KINDS.values() for kind in kinds.values()]
    return list(dict.fromkeys([*KINDS, *(name for group in groups for name in group.own_fields())]))


def check_name(name: str) -> str:
    """Return the setting that a name means, with hyphens or underscores.

    Raises:
        ConfigError: if no kind has it; it names the nearest.
    """
    name = name.replace("-", "_")
    if name not in (known := known_names()):
        raise ConfigError(f"there is no setting {name}{_nearest(name, known)}")
    return name


def _unknown(name: str, config: Configuration) -> ConfigError:
    """Return why a configuration does not have a setting."""
    chosen = config.flat()
    try:
        check_name(name)
    except ConfigError as error:
        return error
    having = list(owners(name))
    slots = dict.fromkeys(owner.slot for owner in having)
    for slot in reversed(slots):  # the innermost that is chosen here
        kinds = [owner.kind for owner in having if owner.slot == slot]
        several = "s" if len(kinds) > 1 else ""
        if slot in chosen:
            return ConfigError(
                f"`{name}` is a setting of the {slot}{several} {', '.join(kinds)}, and the {slot} "
                f"is {chosen[slot]}: choose `{slot}` {kinds[0]}, or leave it out"
            )
    slot = next(iter(slots))
    if slot in chosen:  # the name is itself one of a kind of something
        return ConfigError(f"the {slot} {chosen[slot]} has no {name}: leave `{name}` out")
    owner = next(owners(slot))
    return ConfigError(
        f"`{name}` is a setting of a {slot}, and the {owner.slot} {chosen.get(owner.slot)} has no "
        f"{slot}: leave it out"
    )


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else ""
