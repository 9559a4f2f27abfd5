"""The embedded world: what it holds, that its exams are held out, and that writing it is repeatable."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from nanochat.calculator import calculate
from nanochat.common import read_json
from nanochat.dataset import read_row_group, split_shards
from nanochat.sample_world import write_world
from nanochat.world.chat import MIX, conversations
from nanochat.world.exams import ITEMS, make_exams
from nanochat.world.facts import KINDS, World, make_world
from nanochat.world.identity import expand, identity, normalise
from nanochat.world.prose import MAX_CHARS, MIN_CHARS, documents
from nanochat.world.sums import draw_sum, is_reserved
from tasks.sample_world import (
    Exam,
    calls_and_answers,
    commonest_answer_score,
    is_answer,
    is_not_empty,
    is_sentence,
    load_exams,
    names_answer,
)

SEEDS = (1, 2)
SUM = re.compile(r"(\d+) ?(?:\+|-|\*|/|x|plus|minus|times|divided by|take away) ?(\d+)")
Exams = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=SEEDS)
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param)


@pytest.fixture(scope="module")
def exams(world: World) -> Exams:
    return make_exams(world)


@pytest.fixture(scope="module")
def chats(world: World) -> list[list[dict[str, Any]]]:
    """The messages of many conversations of both stages."""
    both = itertools.chain(conversations(world, "mid", 1, 4_000), conversations(world, "sft", 1, 1_500))
    return [chat["messages"] for chat in both]


@pytest.fixture(scope="module")
def texts(world: World) -> list[str]:
    return list(itertools.islice(documents(world, "train"), 2_500))


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


def texts_by_name(world: World, texts: Iterable[str]) -> dict[str, str]:
    """Name of each entity, in small letters -> all texts with that word, in small letters."""
    found: dict[str, list[str]] = {entity.name.lower(): [] for entity in world.entities}
    for text in map(str.lower, texts):
        for word in found.keys() & re.findall(r"\w+", text):
            found[word].append(text)
    return {name: "\n".join(those) for name, those in found.items()}


# ----------------------------------------------------------------------------- the facts


def test_the_world_is_large_and_its_answers_balanced(world: World) -> None:
    assert len(world.entities) >= 120 and len(world.pairs) >= 700
    assert len({e.name for e in world.entities}) == len(world.entities)
    for kind in KINDS:
        assert 4 <= len(kind.relations) <= 8 and len(set(kind.names)) == len(kind.names)
        for relation in kind.relations:
            facts = Counter(e.value(relation) for e in world.of_kind(kind))
            assert max(facts.values()) <= 0.15 * facts.total(), relation.name
            assert len(set(relation.values)) == len(relation.values)


def test_names_are_no_words_of_the_texts(world: World) -> None:
    names = {name for kind in KINDS for name in kind.names}
    assert len(names) == sum(len(kind.names) for kind in KINDS)
    assert not {name.lower() for name in names} & {value.lower() for value in world.words}


def test_every_fact_has_many_wordings_and_questions() -> None:
    for relation in (r for kind in KINDS for r in kind.relations):
        wordings, questions = relation.wordings("Nobody", "nothing"), relation.questions("Nobody")
        assert len(set(wordings)) >= 5 and len(relation.back) >= 2 and len(set(questions)) == 8
        assert all("Nobody" in w and "nothing" in w for w in wordings)
        assert all("Nobody" in q and q[-1] in "?." for q in questions)
        assert not any(mark in " ".join(wordings + questions) for mark in "@*/")


def test_one_seed_is_one_world() -> None:
    assert make_world(1).describe() == make_world(1).describe() != make_world(2).describe()
    assert make_exams(make_world(1)) == make_exams(make_world(1))


def test_a_fifth_of_the_pairs_is_held_out_and_some_entities_are_never_asked_about(world: World) -> None:
    groups = [set(world.asked_pairs), set(world.held_out_pairs), set(world.unseen_pairs)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(world.pairs)
    assert len(groups[1]) == round(0.2 * len(groups[0] | groups[1]))
    assert len(world.unseen) >= 13


# ----------------------------------------------------------------------------- the texts


def test_documents_are_clean_new_and_stream_fast(world: World, texts: list[str]) -> None:
    start = time.process_time()  # what other programs do says nothing
    size = sum(len(text) for text in itertools.islice(documents(world, "speed"), 1_500))
    assert size / (time.process_time() - start) > 0.5e6  # bytes a second: 20 MB in 40 s at worst
    assert all(text.isascii() and MIN_CHARS <= len(text) <= MAX_CHARS for text in texts)
    assert len(set(texts)) == len(texts)
    assert texts[:50] == list(itertools.islice(documents(world, "train"), 50))
    assert not set(texts) & set(itertools.islice(documents(world, "val"), 500))
    assert not re.search(r"[@*{}] |  |\.\.|None", "\n".join(t for t in texts if not SUM.search(t)))


def test_the_texts_state_every_fact(world: World, texts: list[str]) -> None:
    """Also those that are held out: as sentences in some wording, never as a question."""
    said = texts_by_name(world, texts)
    for entity, relation in world.held_out_pairs + world.unseen_pairs:
        about = said[entity.name.lower()]
        assert any(w.lower() in about for w in relation.wordings(entity.name, entity.value(relation)))
        assert not any(q.lower() in about for q in relation.questions(entity.name))


# ----------------------------------------------------------------------------- nothing leaks


def test_no_conversation_asks_what_is_held_out(world: World, chats: list[list[dict[str, Any]]]) -> None:
    """No question, frame, option or answer about a held-out pair; no unseen name anywhere."""
    said = texts_by_name(world, (text_of(message) for chat in chats for message in chat))
    assert not any(said[name.lower()] for name in world.unseen)
    for entity, relation in world.held_out_pairs:
        about = said[entity.name.lower()]
        questions = [question.rstrip(".?").lower() for question in relation.questions(entity.name)]
        sentences = [relation.canonical(entity.name, value).lower() for value in relation.values]
        assert about and not any(phrase in about for phrase in questions + sentences)


def test_conversations_ask_most_of_what_they_may(world: World, chats: list[list[dict[str, Any]]]) -> None:
    said = {text_of(message) for chat in chats for message in chat if message["role"] == "assistant"}
    asked = [
        pair for pair in world.asked_pairs if pair[1].canonical(pair[0].name, pair[0].value(pair[1])) in said
    ]
    assert len(asked) > 0.95 * len(world.asked_pairs)


def test_no_sum_of_the_exam_is_ever_trained_on(
    texts: list[str], chats: list[list[dict[str, Any]]], exams: Exams
) -> None:
    trained = "\n".join(itertools.chain(texts, (text_of(m) for chat in chats for m in chat)))
    sums = {(int(a), int(b)) for a, b in SUM.findall(trained)}
    assert len(sums) > 3_000 and not any(is_reserved(a, b) for a, b in sums)
    for item in exams["arithmetic"]:
        a, b = map(int, re.findall(r"\d+", item["calls"][0]))
        assert is_reserved(a, b) and (a, b) not in sums and (b, a) not in sums


def test_identity_exam_asks_in_templates_that_training_never_uses(
    world: World, chats: list[list[dict[str, Any]]], texts: list[str], exams: Exams
) -> None:
    topics = identity(world.seed)
    trained = {normalise(p) for topic in topics for phrasings in topic.trained for p in phrasings}
    owners = Counter(q for t in topics for q in {normalise(p) for ps in t.trained + t.exam for p in ps})
    assert max(owners.values()) == 1, owners.most_common(3)  # one phrasing, one answer
    examined = {normalise(item["phrasing"]) for item in exams["identity"]}
    templates = [t for topic in topics for t in topic.exam]
    assert len(trained) >= 300 and len(examined) >= 50 and len(templates) >= 50
    assert not trained & examined
    assert all(any(normalise(p) in examined for p in template) for template in templates)
    asked = {text_of(message) for chat in chats for message in chat if message["role"] == "user"}
    prose = re.findall(r"Question: (.*)", "\n".join(texts))
    assert not examined & {normalise(question) for question in itertools.chain(asked, prose)}


# ----------------------------------------------------------------------------- exams


def test_exams_are_large_and_unambiguous(exams: Exams) -> None:
    for name, items in exams.items():
        assert len(items) >= ITEMS, name
        assert all(item["messages"][-1]["role"] == "user" for item in items)
        asked = Counter(item["messages"][0]["content"] for item in items)
        assert name == "stop" or max(asked.values()) == 1
    topics = Counter(item["topic"] for item in exams["identity"])
    assert len(topics) >= 10 and max(topics.values()) - min(topics.values()) <= 1


def test_choices_have_four_options_of_one_type_at_random_places(world: World, exams: Exams) -> None:
    places = Counter(item["gold"] for item in exams["world_mc"])
    assert set(places) == {0, 1, 2, 3} and max(places.values()) - min(places.values()) <= 1
    facts = {(e.name, r.name): (r, e.value(r)) for e, r in world.pairs}
    for item in exams["world_mc"]:
        relation, value = facts[item["entity"], item["relation"]]
        assert len(set(item["options"])) == 4
        assert set(item["options"]) <= {relation.canonical(item["entity"], v) for v in relation.values}
        assert item["options"][item["gold"]] == relation.canonical(item["entity"], value)
        for messages in (item["messages"], item["letter_messages"]):
            assert all(option in messages[0]["content"] for option in item["options"])


def test_arithmetic_covers_four_operations_up_to_999(exams: Exams) -> None:
    operations = Counter(re.sub(r"\d", "", item["calls"][0]) for item in exams["arithmetic"])
    assert set(operations) == set("+-*/") and len(set(operations.values())) == 1
    for item in exams["arithmetic"]:
        operands = [int(n) for n in re.findall(r"\d+", item["calls"][0])]
        assert max(operands) <= 999 and all(str(n) in item["messages"][0]["content"] for n in operands)
        assert all(calculate(call) == str(item["result"]) for call in item["calls"])


# ----------------------------------------------------------------------------- conversations


def test_conversations_alternate_and_their_calls_give_their_outputs(
    chats: list[list[dict[str, Any]]],
) -> None:
    lengths = Counter(len(chat) // 2 for chat in chats)
    assert set(lengths) == {1, 2, 3, 4} and 0.05 < 1 - lengths[1] / len(chats) < 0.2
    for chat in chats:
        assert [m["role"] for m in chat] == ["user", "assistant"] * (len(chat) // 2)
        for message in chat[1::2]:
            if isinstance(message["content"], list):
                call, output, text = message["content"]
                assert [p["type"] for p in message["content"]] == ["python", "python_output", "text"]
                assert calculate(call["text"]) == output["text"] and output["text"] in text["text"]


def test_the_mix_decides_what_is_talked_about(world: World) -> None:
    only = list(conversations(world, "sft", 1, 50, {"sum": 1.0}))
    assert all(isinstance(chat["messages"][1]["content"], list) for chat in only)
    assert sum(MIX.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"riddles.*sum, world, identity"):
        next(conversations(world, "sft", 1, 1, {"riddles": 1.0}))


def test_sums_are_whole_and_small() -> None:
    rng = random.Random(0)
    for reserved in (False, True):
        for drawn in (draw_sum(rng, reserved=reserved) for _ in range(400)):
            assert is_reserved(drawn.a, drawn.b) == is_reserved(drawn.b, drawn.a) == reserved
            assert max(drawn.a, drawn.b) <= 999 and str(drawn.result) == calculate(drawn.call)


def test_templates_expand() -> None:
    assert expand("{A|B} {|c }d?") == ("A d?", "A c d?", "B d?", "B c d?")


# ----------------------------------------------------------------------------- checks


def test_checks_accept_right_replies_and_refuse_wrong_ones() -> None:
    fact = {"answer": "lake", "others": ["hill", "river"], "sentence": "Tamo lives near the lake."}
    assert names_answer(fact, "Near the Lake!") and is_sentence(fact, "tamo lives near the lake")
    assert not names_answer(fact, "Near the lake or the hill.") and not names_answer(fact, "Near the lakes.")
    assert not is_sentence(fact, "Near the lake.") and not names_answer(fact, "")
    item = {"calls": ["3+12", "12+3"], "result": 15}
    call = "<|python_start|>{}<|python_end|><|output_start|>{}<|output_end|>"
    assert calls_and_answers(item, call.format("12 + 3", "15") + "The answer is 15.")
    assert not calls_and_answers(item, "The answer is 15.")
    assert not calls_and_answers(item, call.format("12+3", "15") + "The answer is 51.")
    assert not calls_and_answers(item, call.format("13+2", "15") + "The answer is 15.")
    assert not calls_and_answers(item, call.format("12+3", "15"))
    assert is_answer({"answer": "I am nanochat."}, "i am nanochat<|assistant_end|>")
    assert not is_answer({"answer": "I am nanochat."}, "I am not nanochat.")
    assert not is_not_empty({}, call.format("1+1", "2") + " ") and is_not_empty({}, "Yes.")


def test_canonical_replies_pass_their_exams(exams: Exams) -> None:
    replies = {
        "world_generative": lambda item: item["sentence"],
        "world_generative_unseen": lambda item: item["sentence"],
        "identity": lambda item: item["answer"],
    }
    for name, reply in replies.items():
        exam = Exam(name, exams[name])
        assert all(exam.check(item, reply(item)) for item in exam)
        wrong = [exam.check(item, reply(exam[i - 20])) for i, item in enumerate(exam)]
        assert sum(wrong) < 0.5 * len(exam)
    with pytest.raises(ValueError, match="likelihoods"):
        Exam("world_mc", exams["world_mc"]).check({}, "")


# ----------------------------------------------------------------------------- files


def contents(directory: Path) -> dict[str, Any]:
    """What was written, by name; of Parquet files the texts."""
    shards = itertools.chain(*split_shards(directory))
    texts = {s.name: [read_row_group(s.path, i) for i in range(len(s.row_groups))] for s in shards}
    return texts | {p.name: p.read_bytes() for p in directory.iterdir() if p.suffix in (".json", ".jsonl")}


AMOUNTS = (3, 0.1, 300, 100)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A world's folder, not to be spoiled, and what writing it returned."""
    folder = tmp_path_factory.mktemp("world") / "a"
    return folder, write_world(folder, *AMOUNTS)


def test_write_world(written: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = written
    assert summary["facts"] >= 700 and summary["exams"]["identity"] >= ITEMS
    train, val = split_shards(folder)
    size = sum(
        len(text) for s in train for i in range(len(s.row_groups)) for text in read_row_group(s.path, i)
    )
    assert 0.1e6 <= size < 0.11e6 and len(val) == 1
    mid = [json.loads(line) for line in (folder / "mid.jsonl").read_text().splitlines()]
    assert len(mid) == 300 and 20 < sum("text" in item for item in mid) < 90
    assert len((folder / "sft.jsonl").read_text().splitlines()) == 100
    exams = load_exams(folder / "exams.json")
    assert set(exams) == set(summary["exams"]) and exams["stop"].must_end
    world = read_json(folder / "world.json")
    baseline = commonest_answer_score(world, exams["world_generative"])
    assert 0.02 < baseline < 0.25


def test_a_finished_world_is_kept_and_an_interrupted_one_comes_out_the_same(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, summary = written
    times = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert write_world(folder, *AMOUNTS) == summary
    assert times == {p: p.stat().st_mtime_ns for p in folder.iterdir()}

    interrupted = shutil.copytree(folder, tmp_path / "b")
    for path in interrupted.iterdir():
        if path.name != "world.json":
            path.unlink()
    write_world(interrupted, *AMOUNTS)
    assert contents(interrupted) == contents(folder)


def test_other_data_is_never_overwritten(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = shutil.copytree(written[0], tmp_path / "other")
    seed, *amounts = AMOUNTS
    with pytest.raises(ValueError, match="choose another"):
        write_world(folder, seed + 1, *amounts)
    (folder / "world.json").unlink()
    with pytest.raises(ValueError, match="not a sample world"):
        write_world(folder, *AMOUNTS)
    with pytest.raises(ValueError, match="more than 0"):
        write_world(tmp_path / "new", 3, 0.05, 0, 10)
    with pytest.raises(ValueError, match="no exams"):
        load_exams(tmp_path / "new" / "exams.json")
