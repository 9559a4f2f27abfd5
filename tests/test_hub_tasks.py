"""The data sets of the hub as tasks: every real row, the reference's rule, and what is wrong with a file.

Real rows come from NANOCHAT_TEST_DATA; without it these tests are skipped and say so.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import rollout
from nanochat.calculator import calculate
from nanochat.common import UsageError, sha256_file
from nanochat.ledger import Ledger
from nanochat.tokenizer import Tokenizer
from tasks import catalogue
from tasks.arc import ARC
from tasks.common import Task
from tasks.gsm8k import GSM8K, final_number
from tasks.mmlu import MMLU
from tasks.rows import content_hash
from tasks.smoltalk import SmolTalk
from tasks.spellingbee import Spelling, SpellingBee

WORDS = ["".join(w) for w in itertools.product(("ba", "mis", "o", "st"), ("na", "sip", "lo"), "aeiou")]


@pytest.fixture(scope="session")
def hub(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real rows, laid out as `download_data` lays them out."""
    root = tmp_path_factory.mktemp("hub")
    (root / "tasks" / "smoltalk").mkdir(parents=True)
    for name, source in (
        ("arc", "tasks/ai2_arc"), ("mmlu", "tasks/mmlu"), ("gsm8k", "tasks/gsm8k"), ("smoltalk/data", "chat"),
    ):  # fmt: skip
        (root / "tasks" / name).symlink_to(test_data / source)
    return root


def real_tasks(hub: Path) -> list[Task]:
    arcs = [ARC(hub, level, split) for level in ("easy", "challenge") for split in ("validation", "test")]
    mmlu = [MMLU(hub, split) for split in ("dev", "validation", "test")]
    return [*arcs, *mmlu, GSM8K(hub, "train"), GSM8K(hub, "test")]


# ----------------------------------------------------------------------------- real rows


@pytest.mark.slow
def test_every_real_row_renders_and_tokenises(hub: Path, tokenizer: Tokenizer) -> None:
    rows = 0
    for task in [*real_tasks(hub), SmolTalk(hub, "test")]:
        for item in task:
            ids, mask = tokenizer.render_conversation(item)
            assert len(ids) == len(mask) and any(mask)
            prompt = tokenizer.render_for_completion({"messages": item["messages"][:-1]})
            assert ids[: len(prompt)] == prompt and not mask[len(prompt) - 1] and all(mask[-1:])
            rows += 1
    assert rows == 2504 + 500


def test_options_stand_with_their_letters(hub: Path) -> None:
    labels: Counter[str] = Counter()
    for task in real_tasks(hub):
        for item in task if task.kind == "letter" else ():
            asked = item["messages"][0]["content"]
            assert item["messages"][1]["content"] == item["labels"][item["gold"]]
            options = zip(item["options"], item["labels"], strict=True)
            assert "".join(f"- {text}={label}\n" for text, label in options) in asked
            labels["".join(item["labels"])] += 1
    assert labels == {"ABCD": 257 + 298 + 145 + 297 + 884, "1234": 16, "ABC": 1 + 2 + 2, "ABCDE": 2}


def test_calls_of_the_calculator_are_kept(hub: Path) -> None:
    """Text, calls and results put together again are the answer of the data set; most results are ours."""
    results: Counter[bool] = Counter()
    task = GSM8K(hub, "train")
    for i, item in enumerate(task):
        parts = item["messages"][1]["content"]
        whole = ""
        for part, after in zip(parts, [*parts[1:], {}], strict=True):
            if part["type"] == "python":
                whole += f"<<{part['text']}={after['text']}>>"
                mine = calculate(part["text"])
                results[
                    mine is not None and float(mine) == pytest.approx(float(after["text"]), rel=0.02)
                ] += 1
            elif part["type"] == "text":
                whole += part["text"]
        assert whole == task.rows[i]["answer"]
    assert results[True] > 0.97 * results.total()


def test_a_task_with_checks_is_practised(hub: Path, tokenizer: Tokenizer) -> None:
    """Its rows hold the solution; the model sees the question alone, and earns 1 by the task's own rule."""
    task = catalogue.load_problems(hub, hub, "gsm8k")
    prompts = rollout.fixed_prompts(task, range(20), tokenizer, 4096, 256)
    assert len(prompts) == 20
    for prompt in prompts:
        item = task[prompt.item]
        text = tokenizer.decode(prompt.ids)
        assert item["messages"][0]["content"] in text and text.endswith("<|assistant_start|>")
        assert task.reward(item, f"#### {item['answer']}", True) == 1 > task.reward(item, "#### x", True)
    with pytest.raises(UsageError, match="replies are not checked; name gsm8k, spellingbee"):
        catalogue.load_problems(hub, hub, "identity")
    with pytest.raises(UsageError, match="no such file"):
        catalogue.load_problems(hub, hub, "gsm9k")


# ----------------------------------------------------------------------------- the rule of GSM8K


def reference(text: str) -> str | None:
    """The rule in words: behind the first `#### ` that a number follows, without commas."""
    start = text.find("#### ")
    while start >= 0:
        end = start = start + len("#### ")
        end += text[end : end + 1] == "-"
        first = end
        while text[end : end + 1] and text[end] in "0123456789.,":
            end += 1
        if end > first:
            return text[start:end].replace(",", "")
        start = text.find("#### ", start)
    return None


def altered(rng: random.Random, answer: str) -> str:
    """A real answer, changed in one of many ways, some of which leave it right."""
    text, number = answer.rsplit("#### ", 1)
    plain = number.replace(",", "")
    other = str(int(plain) + rng.choice((-10, -1, 1, 7, 1000)))
    return rng.choice((
        answer, text + f"#### {int(plain):,}", text + f"#### {plain}", f"#### {plain}\nThat is all.",
        text + f"#### {plain} dollars", text + f"#### {plain}<|assistant_end|>", text + f"\n\n#### {plain}",
        text + f"#### {other}", text + f"#### {number}0", text + f"#### -{plain}", text + f"#### {plain}.",
        text + f"#### {plain}.0", text + f"#### {plain}.50", text + f"#### ${plain}", text + f"#### {plain}$",
        text + f"#### €{plain}", text + f"####{plain}", text + f"### {plain}", text + f"####  {plain}",
        text + f"#### {plain}%", text + f"#### {plain[:1]} {plain[1:]}", text + f"#### 0{plain}",
        text + f"#### {other}\n#### {plain}", text + f"#### {plain}\n#### {other}", text + "#### ",
        text + f"#### none #### {plain}", text, plain, "", f"The answer is {plain}.", text + f"#### {plain},",
        text + f"#### --{plain}", text + "#### .", text + f"#### {plain}e0", text + f"#### +{plain}",
    ))  # fmt: skip


def test_scoring_is_the_references(hub: Path) -> None:
    """On all real answers, and on 1,000 altered ones."""
    rows = [(task, item, row) for task in (GSM8K(hub, "train"), GSM8K(hub, "test"))
            for item, row in zip(task, task.rows, strict=True)]  # fmt: skip
    for task, item, row in rows:
        assert item["answer"] == reference(row["answer"]) == row["answer"].split("#### ")[1].replace(",", "")
        assert task.check(item, row["answer"])
    rng, verdicts = random.Random(8), Counter[bool]()
    for _ in range(1000):
        task, item, row = rng.choice(rows)
        reply = altered(rng, row["answer"])
        assert task.check(item, reply) == (reference(reply) == item["answer"]), reply
        verdicts[task.check(item, reply)] += 1
    assert min(verdicts[True], verdicts[False]) > 300
    print(f"{len(rows)} real and 1000 altered answers: {dict(verdicts)}")


@pytest.mark.parametrize(
    ("text", "number"),
    [("#### 1,234", "1234"), ("a #### -7 b", "-7"), ("#### 3.50", "3.50"), ("#### $5", None), ("5", None),
     ("#### x #### 5", "5"), ("#### 18.", "18."), ("", None)],
)  # fmt: skip
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


# ----------------------------------------------------------------------------- spelling


@pytest.fixture
def words(tmp_path: Path) -> Path:
    (tmp_path / "words_alpha.txt").write_text("\n".join([*WORDS, "Capital", "don't", "", "caf\u00e9"]))
    return tmp_path


def test_spelling_counts_letters(words: Path, tokenizer: Tokenizer) -> None:
    train, test = (SpellingBee(words, split, 200) for split in ("train", "test"))
    assert set(train.words) | set(test.words) == set(WORDS) and not set(train.words) & set(test.words)
    assert SpellingBee(words, "test")[:5][3] == test[3]  # an item does not depend on the size
    counts = set()
    for item in [*train, *test]:
        parts = item["messages"][1]["content"]
        assert calculate(parts[1]["text"]) == parts[2]["text"] == item["answer"]
        assert train.check(item, f"... #### {item['answer']}") and not train.check(item, "#### 99")
        assert f"comes {item['answer']} time" in parts[0]["text"]
        counts.add(int(item["answer"]))
        assert any(tokenizer.render_conversation(item)[1])
    assert {0, 1, 2} <= counts
    spelled = Spelling(words, "train", 20)[0]["messages"]
    word = spelled[1]["content"].split(":")[0]
    assert word in spelled[0]["content"] and spelled[1]["content"] == f"{word}: {','.join(word)}"


def test_a_list_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no list of words at \S*words_alpha.txt; fetch it: python -m"):
        SpellingBee(tmp_path, "test")
    (tmp_path / "words_alpha.txt").write_text("Aa 12\n")
    with pytest.raises(UsageError, match="has no word of lower-case letters"):
        SpellingBee(tmp_path, "test")
    (tmp_path / "words_alpha.txt").write_text("kiwi\n")
    with pytest.raises(UsageError, match="none of its 1 is for 'test'"):
        SpellingBee(tmp_path, "test")


# ----------------------------------------------------------------------------- faults of files


def put(root: Path, place: str, *rows: dict[str, Any]) -> Path:
    path = root / "tasks" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def arc_row(**changed: Any) -> dict[str, Any]:
    row = {"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "B"}
    return {**row, **changed}


def mmlu_row(**changed: Any) -> dict[str, Any]:
    return {"question": "q", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 2, **changed}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (arc_row(answerKey="D"), "the answer 'D' is none of A, B, C"),
        (arc_row(choices={"text": ["x"], "label": ["A", "B"]}), "1 options and 2 letters"),
        (arc_row(choices={"text": ["x"], "label": ["B"]}), "1 options and 1 letters; two or more"),
        (
            arc_row(choices={"text": ["x", "y"], "label": ["B", "B"]}),
            "the letters B, B are not all",
        ),
        (arc_row(question=None), "`question` is empty"),
        (arc_row(choices={"text": None, "label": ["A", "B"]}), "NoneType"),
    ],
)
def test_a_bad_row_of_arc_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    put(tmp_path, "arc/ARC-Easy/test-00000-of-00001.parquet", arc_row(), row)
    task = ARC(tmp_path, "easy", "test")
    assert task[0]["gold"] == 1
    with pytest.raises(UsageError, match=r"test-00000-of-00001\.parquet, row 2: .*" + re.escape(message)):
        task[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (mmlu_row(choices=["a", "b", "c"]), "3 options and 4 letters"),
        (mmlu_row(choices=["a", "b", "c", "d", "e"]), "5 options and 4 letters"),
        (mmlu_row(answer=4), "the answer is option 4, and there are 4"),
        (mmlu_row(answer=-1), "the answer is option -1"),
        (mmlu_row(answer=None), "`answer` is empty"),
    ],
)
def test_a_bad_row_of_mmlu_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    put(tmp_path, "mmlu/all/test-00000-of-00002.parquet", mmlu_row(), mmlu_row())
    put(tmp_path, "mmlu/all/test-00001-of-00002.parquet", mmlu_row(), row)
    with pytest.raises(UsageError, match=r"test-00001-of-00002\.parquet, row 2: " + re.escape(message)):
        MMLU(tmp_path, "test")[3]


def test_bad_rows_of_gsm8k_and_smoltalk_are_named(tmp_path: Path) -> None:
    put(tmp_path, "gsm8k/main/test.parquet", {"question": "q", "answer": "no number"})
    with pytest.raises(UsageError, match=r"test\.parquet, row 1: no `#### number` in the answer 'no number'"):
        GSM8K(tmp_path, "test")[0]
    put(tmp_path, "smoltalk/data/train.parquet", {"messages": []}, {"messages": [{"role": "user"}]})
    task = SmolTalk(tmp_path, "train")
    with pytest.raises(UsageError, match="row 1: the conversation has no message"):
        task[0]
    with pytest.raises(UsageError, match="row 2: 'content'"):
        task[1]


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no split 'test' in \S*ARC-Easy \(there is nothing\); fetch it"):
        ARC(tmp_path, "easy", "test")
    put(tmp_path, "mmlu/all/dev-00000-of-00001.parquet", mmlu_row())
    with pytest.raises(UsageError, match=r"no split 'test' in \S*all \(it has dev\); fetch it: python -m"):
        MMLU(tmp_path, "test")
    put(tmp_path, "mmlu/all/test-00000-of-00003.parquet", mmlu_row())
    with pytest.raises(UsageError, match="has 1 of the 3 files of 'test'"):
        MMLU(tmp_path, "test")


def test_a_damaged_file_and_another_layout_are_named(tmp_path: Path) -> None:
    path = put(tmp_path, "gsm8k/main/test.parquet", {"question": "q", "solution": "#### 1"})
    with pytest.raises(UsageError, match="has no column 'answer'; it has question, solution"):
        GSM8K(tmp_path, "test")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        GSM8K(tmp_path, "test")


def test_rows_within_a_column_are_found(tmp_path: Path) -> None:
    put(tmp_path, "mmlu/all/auxiliary_train-00000-of-00001.parquet", {"train": mmlu_row(answer=3)})
    assert MMLU(tmp_path, "auxiliary_train")[0]["messages"][1]["content"] == "D"


def test_content_is_hashed_by_the_ledger_if_the_file_is_as_it_came(tmp_path: Path) -> None:
    path = put(tmp_path, "gsm8k/main/test.parquet", {"question": "q", "answer": "#### 1"})
    true, place = sha256_file(path), "tasks/gsm8k/main/test.parquet"
    assert content_hash(tmp_path, path) == true
    ledger = Ledger(tmp_path)
    ledger.add(place, "gsm8k", "datasets/openai/gsm8k", "c0ffee", "main/test.parquet", "f" * 64)
    ledger.save()
    assert content_hash(tmp_path, path) == "f" * 64
    put(tmp_path, "gsm8k/main/test.parquet", {"question": "other", "answer": "#### 1"})
    assert content_hash(tmp_path, path) not in ("f" * 64, true)
