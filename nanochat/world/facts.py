"""A small closed world, drawn from a seed: who is there, what is true of each, what is kept for exams.

What it is: kinds and relations (parsed from `tables`), entities, facts, and the split that makes the
exams honest: `held_out` pairs and `unseen` entities are stated in pretraining text and never asked about in
any conversation. What it is not: text; `prose` and `chat` write that. How to look at it:
`python -c "from nanochat.world.facts import make_world; print(make_world(1).describe())"`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nanochat.world.tables import COLOURS, MONTHS, TABLES

ENTITIES_PER_KIND = 22
UNSEEN_ENTITIES = 14
HELD_OUT_SHARE = 0.2

# Generic frames, around a sentence and around an indirect question.
VOUCH = ("Everyone knows that {}.", "People say that {}.", "It is true that {}.")
FRAMES = ("Tell me {}.", "Do you know {}?", "Can you tell me {}?", "I would like to know {}.")


@dataclass(frozen=True, eq=False)
class Relation:
    """One property that every entity of a kind has. In its templates `@` is the name and `*` the value."""

    name: str
    values: tuple[str, ...]
    fact: str  # "lives near the *"
    group: str  # the same of several entities: "live near the *"
    clause: str  # an indirect question: "where @ lives"
    says: tuple[str, ...]
    back: tuple[str, ...]
    asks: tuple[str, ...]

    def predicate(self, value: str) -> str:
        return self.fact.replace("*", value)

    def plural(self, value: str) -> str:
        return self.group.replace("*", value)

    def canonical(self, name: str, value: str) -> str:
        """The one sentence that answers every question for this fact."""
        return f"{name} {self.predicate(value)}."

    def wordings(self, name: str, value: str) -> list[str]:
        """Every way in which pretraining text states this fact by itself, the canonical one first."""
        stated = [t.replace("@", name).replace("*", value) for t in self.says + self.back]
        vouched = [frame.format(f"{name} {self.predicate(value)}") for frame in VOUCH]
        return [self.canonical(name, value), *stated, *vouched]

    def questions(self, name: str) -> list[str]:
        """Every phrasing in which conversations and exams ask this of `name`."""
        clause = self.clause.replace("@", name)
        return [ask.replace("@", name) for ask in self.asks] + [frame.format(clause) for frame in FRAMES]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of entity: its nouns, the names to draw from and its relations."""

    noun: str
    plural: str
    names: tuple[str, ...]
    relations: tuple[Relation, ...]


@dataclass(frozen=True, eq=False)
class Entity:
    """A name with a value for each relation of its kind; `pronoun` is It, He or She."""

    name: str
    kind: Kind
    pronoun: str
    facts: dict[str, str]  # relation name -> value

    def value(self, relation: Relation) -> str:
        return self.facts[relation.name]


Pair = tuple[Entity, Relation]


@dataclass(frozen=True)
class World:
    """Everything that is true, and what is kept from the conversations."""

    seed: int
    entities: tuple[Entity, ...]
    held_out: frozenset[tuple[str, str]]  # (entity name, relation name): asked about in exams only
    unseen: frozenset[str]  # names that no conversation mentions

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple((e, r) for e in self.entities for r in e.kind.relations)

    @cached_property
    def asked_pairs(self) -> tuple[Pair, ...]:
        """The pairs that conversations may ask."""
        return tuple(p for p in self.pairs if p[0].name not in self.unseen and not self.is_held_out(p))

    @cached_property
    def held_out_pairs(self) -> tuple[Pair, ...]:
        return tuple(p for p in self.pairs if self.is_held_out(p))

    @cached_property
    def unseen_pairs(self) -> tuple[Pair, ...]:
        return tuple(p for p in self.pairs if p[0].name in self.unseen)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every value word, sorted: what spelling texts spell."""
        return tuple(sorted({v for kind in KINDS for r in kind.relations for v in r.values}))

    def is_held_out(self, pair: Pair) -> bool:
        return (pair[0].name, pair[1].name) in self.held_out

    def of_kind(self, kind: Kind) -> list[Entity]:
        return [e for e in self.entities if e.kind is kind]

    def describe(self) -> dict[str, Any]:
        """The world as JSON: every fact, and what is kept from the conversations."""
        return {
            "entities": [{"name": e.name, "kind": e.kind.noun, "facts": e.facts} for e in self.entities],
            "relations": {k.noun: {r.name: list(r.values) for r in k.relations} for k in KINDS},
            "held_out": sorted(map(list, self.held_out)),
            "unseen": sorted(self.unseen),
        }


def make_world(seed: int) -> World:
    """The world of this seed: 132 entities of 6 kinds, 748 facts, the values of a relation balanced."""
    rng = random.Random(f"world {seed}")
    entities = tuple(e for kind in KINDS for e in _draw_entities(kind, rng))
    unseen = frozenset(rng.sample([e.name for e in entities], UNSEEN_ENTITIES))
    pairs = [(e.name, r.name) for e in entities if e.name not in unseen for r in e.kind.relations]
    held_out = frozenset(rng.sample(pairs, round(HELD_OUT_SHARE * len(pairs))))
    return World(seed, entities, held_out, unseen)


def _draw_entities(kind: Kind, rng: random.Random) -> list[Entity]:
    names = rng.sample(kind.names, ENTITIES_PER_KIND)
    columns = {}
    for relation in kind.relations:
        # Whole rounds of all values before any value comes again keep the commonest answer rare.
        values = rng.sample(relation.values, len(relation.values))
        column = [values[i % len(values)] for i in range(len(names))]
        rng.shuffle(column)
        columns[relation.name] = column
    pronouns = [rng.choice(("He", "She")) if kind.noun == "person" else "It" for _ in names]
    return [
        Entity(name, kind, pronouns[i], {r: column[i] for r, column in columns.items()})
        for i, name in enumerate(names)
    ]


# ----------------------------------------------------------------------------- reading the tables


def _parse(text: str) -> Iterator[Kind]:
    text = text.replace("COLOURS", COLOURS).replace("MONTHS", MONTHS)
    for block in text.split("# ")[1:]:
        heading, *lines = block.strip().splitlines()
        noun, plural = heading.split(" / ")
        names: list[str] = []
        tables: list[dict[str, Any]] = []
        for line in lines:
            label, _, rest = line.strip().partition(" ")
            if label == "names:":
                names += rest.split()
            elif label.endswith(":"):
                tables.append(
                    {"name": label[:-1], "values": tuple(rest.split()), "+": (), "-": (), "?": (), "=": ()}
                )
            else:
                tables[-1][label] += tuple(rest.split(" / "))
        yield Kind(noun, plural, tuple(names), tuple(map(_relation, tables)))


def _relation(table: dict[str, Any]) -> Relation:
    fact, group, clause = table["="]
    return Relation(table["name"], table["values"], fact, group, clause, table["+"], table["-"], table["?"])


KINDS = tuple(_parse(TABLES))
