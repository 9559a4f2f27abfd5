"""A conversation in a model's context: what is repeated, what goes, and the parts of a reply."""

from __future__ import annotations

import pytest

from nanochat.common import UsageError
from nanochat.conversation import Conversation, Part, Turn, parts
from nanochat.tokenizer import Tokenizer


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_prompts_are_rendered_as_in_training(tokenizer: Tokenizer) -> None:
    talk = Conversation(tokenizer, 200, system="Be brief.")
    said = [message("system", "Be brief."), message("user", "Hi")]
    assert talk.prompt("Hi", 10) == tokenizer.render_for_completion({"messages": said})
    talk.add("Hi", tokenizer.encode("Hello"))
    said += [message("assistant", "Hello"), message("user", "Why?")]
    prompt = talk.prompt("Why?", 10)
    assert prompt == tokenizer.render_for_completion({"messages": said})
    assert talk.messages() == said[:-1]
    assert talk.forgotten == 0
    assert len(talk) == len(tokenizer.render_conversation({"messages": said[:-1]})[0])


def test_the_oldest_turns_go_and_the_system_prompt_stays(tokenizer: Tokenizer) -> None:
    context = 96
    talk = Conversation(tokenizer, context, system="Be brief.")
    for i in range(12):
        prompt = talk.prompt(f"question {i}", 10)
        assert len(prompt) <= context - 10
        assert tokenizer.decode(prompt).count("Be brief.") == 1
        talk.add(f"question {i}", [65] * 10)
    assert talk.forgotten + len(talk.turns) == 12
    assert 1 < len(talk.turns) < 5
    assert talk.turns[0].question == f"question {talk.forgotten}"


def test_a_question_that_cannot_fit_costs_no_turn(tokenizer: Tokenizer) -> None:
    talk = Conversation(tokenizer, 96, system="S")
    talk.add("Hi", [65])
    with pytest.raises(UsageError, match=r"has 2\d\d tokens with the system prompt, and the model reads 96"):
        talk.prompt("x" * 200, 10)
    assert len(talk.turns) == 1 and talk.forgotten == 0
    longest = next(n for n in range(96, 0, -1) if fits(talk, "x" * n))
    assert len(talk.prompt("x" * longest, 10)) == 95 and talk.turns == []  # alone, with room for one token


def fits(talk: Conversation, question: str) -> bool:
    try:
        Conversation(talk.tokenizer, talk.context, talk.system).prompt(question, 1)
    except UsageError:
        return False
    return True


def test_room_is_at_most_half_the_context(tokenizer: Tokenizer) -> None:
    talk = Conversation(tokenizer, 100)
    talk.add("a" * 10, [65] * 10)
    talk.prompt("b" * 10, 10_000)
    assert talk.forgotten == 0


def test_clearing_keeps_the_system_prompt(tokenizer: Tokenizer) -> None:
    talk = Conversation(tokenizer, 100, system="S")
    talk.turns, talk.forgotten = [Turn("a", [65])], 3
    talk.clear()
    assert (talk.turns, talk.forgotten, talk.system) == ([], 0, "S")


def test_parts_of_a_reply(tokenizer: Tokenizer) -> None:
    content = [
        {"type": "text", "text": "12 and 7 is "},
        {"type": "python", "text": "12*7"},
        {"type": "python_output", "text": "84"},
        {"type": "text", "text": "."},
    ]
    messages = [message("user", "?"), {"role": "assistant", "content": content}]
    ids, mask = tokenizer.render_conversation({"messages": messages})
    reply = ids[mask.index(True) : -1]
    shown = [part for part in parts(iter(reply), tokenizer) if part.text]
    assert Part("python", "12*7") in shown
    assert Part("python_output", "84") in shown
    assert "".join(part.text for part in shown if part.type == "text") == "12 and 7 is ."
    talk = Conversation(tokenizer, 500)
    talk.add("?", reply)
    assert talk.messages() == messages


def test_an_unfinished_call_is_not_shown(tokenizer: Tokenizer) -> None:
    reply = [65, tokenizer.special("python_start"), 66, tokenizer.special("user_start")]
    assert "".join(part.text for part in parts(reply, tokenizer)) == "A"


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_cut_character_is_shown_as_such(tokenizer: Tokenizer, cut: int) -> None:
    text = "".join(part.text for part in parts(list("a🙂".encode()[: 1 + cut]), tokenizer))
    assert text == ("a🙂" if cut == 4 else "a\N{REPLACEMENT CHARACTER}")
