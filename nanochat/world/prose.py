"""Pretraining text of the embedded world: pages, notes, stories, lists, tables, riddles, quizzes and more.

What it is: an endless stream of documents, each newly drawn, in which every fact comes again and again in
ten wordings, some told backwards; `copy` and `identity` add theirs. What it is not:
conversations. Quizzes ask only pairs that conversations may ask, too. How to look at it: `python -c "from
nanochat.world.facts import *; from nanochat.world.prose import *;
print(next(documents(make_world(1), 'x')))"`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from nanochat.world import copy, identity
from nanochat.world.facts import KINDS, VOUCH, Entity, Pair, Relation, World

MIN_CHARS, MAX_CHARS = 100, 1_500
INTROS = (
    "{e} is a {k}.",
    "{e} is one of the {ks}.",
    "Among the {ks} there is {e}.",
    "This page is about {e}, a {k}.",
)
HEADINGS = ("Notes on {}", "What is known about {}", "Some facts about {}", "A few facts about {}")
OPENINGS = (
    "One evening the children sat by the fire and asked for a story.",
    "Long ago a traveller came down the road with a bag full of news.",
    "It was raining, so everybody stayed in and talked.",
    "On the last day of the holidays the class wrote down what it had learned.",
    "A letter came, and it was read aloud after the meal.",
    "The old man on the bench knew something about everyone.",
    "Two friends met on the way home and began to talk.",
    "Nobody could sleep, so they told each other what they knew.",
)
LEADS = (
    "First they spoke of {e}.", "Then somebody mentioned {e}.", "After that they talked about {e}.",
    "The next story was about {e}.", "Nobody could forget {e}.", "A picture showed {e}.",
    "Soon the name of {e} was heard.", "Another page was about {e}.",
)  # fmt: skip
FILLERS = (
    "Everyone nodded.", "The children laughed.", "The lamp burned low.", "The rain did not stop.",
    "It was quiet for a while.", "All agreed that this was so.", "The tea grew cold.",
    "Somebody put more wood on the fire.",
)  # fmt: skip
SPEECH = (
    '"{s}," said {who}.', '"I know that {s}," said {who}.', 'As {who} put it, "{s}."',
    '"Remember that {s}," said {who}.',
)  # fmt: skip
ENDINGS = (
    "Then it was time to go home.", "And that is the end of the story.", "At last everyone went to bed.",
    "The next day they talked about it again.", "They promised to tell more another time.",
)  # fmt: skip
CONTRASTS = (
    "{a} {x}, but {b} {y}.", "While {a} {x}, {b} {y}.", "{b} {y}, and {a} {x}.",
    "{a} is not like {b}: {a} {x} and {b} {y}.",
)  # fmt: skip
SAME = (
    "Both {a} and {b} {g}.",
    "{a} and {b} both {g}.",
    "{a} {x}, and so it is with {b}.",
    "Like {a}, {b} {x}.",
)


# ----------------------------------------------------------------------------- sentences


def state(rng: random.Random, pair: Pair, *, pronoun: bool = False) -> str:
    """One wording of one fact. With `pronoun` the name may give way to it, she or he."""
    entity, relation = pair
    value, chance = entity.value(relation), rng.random()
    if chance < 0.3:
        template = f"@ {relation.fact}."
    elif chance < 0.7:
        template = rng.choice(relation.says)
    elif chance < 0.92:
        template = rng.choice(relation.back)
    else:
        template = rng.choice(VOUCH).format(f"@ {relation.fact}")
    if pronoun and template.startswith("@ ") and template.count("@") == 1:
        return template.replace("@", entity.pronoun).replace("*", value)
    return template.replace("@", entity.name).replace("*", value)


def _relations(rng: random.Random, entity: Entity, count: int) -> list[Relation]:
    return rng.sample(entity.kind.relations, min(count, len(entity.kind.relations)))


def _names(entities: Sequence[Entity]) -> str:
    """ "A", "A and B", "A, B and C" """
    *head, last = [e.name for e in entities]
    return f"{', '.join(head)} and {last}" if head else last


# ----------------------------------------------------------------------------- documents


def page(rng: random.Random, world: World) -> str:
    """An encyclopedia page: everything about one entity, then some of it once more."""
    entity = rng.choice(world.entities)
    kind = entity.kind
    intro = rng.choice(INTROS).format(e=entity.name, k=kind.noun, ks=kind.plural)
    first = [state(rng, (entity, r), pronoun=rng.random() < 0.4) for r in _relations(rng, entity, 9)]
    again = [state(rng, (entity, r)) for r in _relations(rng, entity, rng.randint(0, 5))]
    body = f"{intro} {' '.join(first)}" + (f"\n\n{' '.join(again)}" if again else "")
    return f"{entity.name}\n\n{body}"


def notes(rng: random.Random, world: World) -> str:
    """Facts about one or two entities, each on its own line.

    Here a name begins a line after it stood within one, for which a tokenizer has two different tokens: so a
    reply that begins with the name in the question is no new thing, even for names that no conversation has.
    """
    entities = rng.sample(world.entities, rng.randint(1, 2))
    lines = [
        f"{entity.name} {relation.predicate(entity.value(relation))}."
        for entity in entities
        for relation in _relations(rng, entity, rng.randint(3, 6))
    ]
    return f"{rng.choice(HEADINGS).format(_names(entities))}\n" + "\n".join(lines)


def story(rng: random.Random, world: World) -> str:
    """Several entities of any kind, two or three facts of each, some in direct speech."""
    parts = [rng.choice(OPENINGS)]
    for entity in rng.sample(world.entities, rng.randint(2, 4)):
        parts.append(rng.choice(LEADS).format(e=entity.name))
        for relation in _relations(rng, entity, rng.randint(2, 3)):
            if rng.random() < 0.3:
                fact = f"{entity.name} {relation.predicate(entity.value(relation))}"
                parts.append(rng.choice(SPEECH).format(s=fact, who=rng.choice(copy.ROLES)))
            else:
                parts.append(state(rng, (entity, relation), pronoun=rng.random() < 0.3))
        if rng.random() < 0.4:
            parts.append(rng.choice(FILLERS))
    return " ".join([*parts, rng.choice(ENDINGS)])


def listing(rng: random.Random, world: World) -> str:
    """All who share a value, for some values of a relation."""
    kind = rng.choice(KINDS)
    lines = []
    for relation in rng.sample(kind.relations, rng.randint(1, 2)):
        for value in rng.sample(relation.values, rng.randint(3, 5)):
            those = [e for e in world.of_kind(kind) if e.value(relation) == value]
            rng.shuffle(those)
            if len(those) == 1:
                lines.append(f"Only {those[0].name} {relation.predicate(value)}.")
            elif those and rng.random() < 0.5:
                lines.append(f"These {kind.plural} {relation.plural(value)}: {_names(those)}.")
            elif those:
                lines.append(f"{_names(those)} {relation.plural(value)}.")
    return f"A list of {kind.plural}\n\n" + "\n".join(lines)


def comparison(rng: random.Random, world: World) -> str:
    """Pairs of one kind, alike or not."""
    kind = rng.choice(KINDS)
    lines = []
    for _ in range(rng.randint(3, 7)):
        one, two = rng.sample(world.of_kind(kind), 2)
        relation = rng.choice(kind.relations)
        x, y = (relation.predicate(e.value(relation)) for e in (one, two))
        frame = rng.choice(SAME if x == y else CONTRASTS)
        lines.append(frame.format(a=one.name, b=two.name, x=x, y=y, g=relation.plural(one.value(relation))))
    return f"Comparing {kind.plural}\n\n" + " ".join(lines)


def table(rng: random.Random, world: World) -> str:
    """Rows of true values, then sentences that read them back."""
    kind = rng.choice(KINDS)
    entities = rng.sample(world.of_kind(kind), rng.randint(3, 6))
    relations = rng.sample(kind.relations, rng.randint(1, 3))
    head = " | ".join(["name", *(r.name for r in relations)])
    rows = [" | ".join([e.name, *(e.value(r) for r in relations)]) for e in entities]
    read = [
        state(rng, (e, rng.choice(relations))) for e in rng.sample(entities, rng.randint(2, len(entities)))
    ]
    return f"{head}\n" + "\n".join(rows) + "\n\n" + " ".join(read)


def riddles(rng: random.Random, world: World) -> str:
    """Entities told backwards: what is true first, the name last."""
    texts = []
    for _ in range(rng.randint(2, 3)):
        entity = rng.choice(world.entities)
        clues = [r.predicate(entity.value(r)) for r in _relations(rng, entity, rng.randint(2, 3))]
        texts.append(
            f"This {entity.kind.noun} " + f". {entity.pronoun} ".join(clues) + f". The name is {entity.name}."
        )
    return "Riddles\n\n" + "\n".join(texts)


def quiz(rng: random.Random, world: World) -> str:
    """Questions and answers in plain prose, about pairs that conversations ask, too."""
    frame = rng.choice(("Question: {}\nAnswer: {}", "{}\n{}"))
    turns = []
    for entity, relation in rng.sample(world.asked_pairs, rng.randint(3, 5)):
        question = rng.choice(relation.questions(entity.name))
        turns.append(frame.format(question, relation.canonical(entity.name, entity.value(relation))))
    return "\n".join(turns)


def _documents_by_weight(world: World, rng: random.Random) -> list[tuple[int, Callable[[], str]]]:
    """Every kind of document with its weight: how many of a hundred documents are of that kind."""
    topics = identity.identity(world.seed)
    return [
        (17, lambda: page(rng, world)),
        (7, lambda: notes(rng, world)),
        (16, lambda: story(rng, world)),
        (7, lambda: listing(rng, world)),
        (6, lambda: comparison(rng, world)),
        (6, lambda: table(rng, world)),
        (6, lambda: riddles(rng, world)),
        (6, lambda: quiz(rng, world)),
        (8, lambda: identity.about_nanochat(rng, topics)),
        (4, lambda: copy.copied_numbers(rng)),
        (5, lambda: copy.sums(rng)),
        (3, lambda: copy.symbols(rng)),
        (2, lambda: copy.number_table(rng)),
        (2, lambda: copy.spelling(rng, world.words)),
        (2, lambda: copy.quotations(rng)),
        (3, lambda: copy.labels(rng)),
    ]


def documents(world: World, stream: str) -> Iterator[str]:
    """Endless documents of 100 to 1,500 ASCII characters; `stream` names the random stream (train, ...)."""
    rng = random.Random(f"documents {world.seed} {stream}")
    weights, makers = zip(*_documents_by_weight(world, rng), strict=True)
    while True:
        document = rng.choices(makers, weights)[0]()
        while len(document) < MIN_CHARS:
            document += "\n\n" + rng.choices(makers, weights)[0]()
        if len(document) <= MAX_CHARS:
            yield document
