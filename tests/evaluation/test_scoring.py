import numpy as np
import pytest
import torch

from longvila.errors import InputError
from longvila.evaluation.scoring import Item, Scored, pack_rows, score
from longvila.inference.cache import KvCache
from longvila.inference.features import encode_frames
from longvila.inference.generate import generate
from longvila.inference.prefill import prefill
from longvila.records import Sample, Turn
from longvila.text import Encoded, encode_sample, separator_ids
from tests.evaluation.tiny import lively_model, noise_bank, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BANK = noise_bank()


def items_of(model, answers, *, seed=3):
    rng = np.random.default_rng(seed)
    items = []
    for number, answer in enumerate(answers):
        frames = int(rng.integers(0, 12))
        mark = "<frames> " if frames else ""
        sample = Sample(
            key=f"q{number}", kind="video", split="heldout",
            conversations=(Turn(role="human", text=f"{mark}digit on blue"), Turn(role="gpt", text=answer)),
            frame_times_s=tuple(float(i) for i in range(frames)),
        )  # fmt: skip
        encoded = encode_sample(
            sample, TOKENIZER, tokens_per_frame=model.tokens_per_frame,
            frame_separator_ids=separator_ids(TOKENIZER, model.frame_separator), max_frames=99,
        )  # fmt: skip
        items.append(Item(encoded, rng.integers(0, len(BANK), frames)))
    return items


def scored(model, items, **kwargs):
    features = encode_frames(model, BANK.frames_NHW3)
    return dict(pair for row in score(model, items, features, **kwargs) for pair in row)


def test_packing_changes_no_answer():
    model = lively_model(TOKENIZER)
    items = items_of(model, ["7", "3 red", "blue", "4", "1 2 3", "9", "0"])
    alone = scored(model, items, max_row_tokens=1)
    assert len(set(alone.values())) > 1  # the answers do differ
    assert scored(model, items, max_row_tokens=70) == alone
    assert scored(model, items, max_row_tokens=10_000) == alone


@torch.no_grad()
def greedy(model, item, *, max_new_tokens=8):
    """Decode token after token behind the question; the end token is kept."""
    encoded, first = item.encoded, int(np.flatnonzero(item.encoded.labels != -100)[0])
    prompt = Encoded(
        encoded.input_ids[:first], encoded.labels[:first], encoded.frame_indices, encoded.frame_seats
    )
    features = encode_frames(model, BANK.frames_NHW3[item.frame_rows])
    hidden = prefill(model, prompt, features, cache := KvCache())
    end = TOKENIZER.eos_token_id
    said = generate(model, hidden, cache, end_ids={end}, max_new_tokens=max_new_tokens)
    return (*said.tokens, end) if said.finish == "end" else said.tokens


def test_the_greedy_answer_is_known_from_one_pass():
    """Up to the first difference, and whether it is the expected one: as by decoding token after token."""
    model = lively_model(TOKENIZER)
    items = items_of(model, [*(str(i) for i in range(10)), "3 red", "blue 4 4"])
    answers = scored(model, items, max_row_tokens=500)
    for number, answer in answers.items():
        said = greedy(model, items[number])
        assert answer.said == said[: len(answer.said)]
        assert answer.generated == (said == answer.expected)
    assert len({answer.said for answer in answers.values()}) > 3


def test_the_model_s_own_answer_is_right():
    """Expect just what the model says: teacher forcing agrees, word for word."""
    model = lively_model(TOKENIZER)
    for item in items_of(model, ["1 2 3"] * 6):
        said = greedy(model, item, max_new_tokens=3)
        labels, first = item.encoded.labels.copy(), int(np.flatnonzero(item.encoded.labels != -100)[0])
        ids = np.concatenate([item.encoded.input_ids[:first], said])
        labels = np.concatenate([labels[:first], said])
        own = Item(
            Encoded(ids, labels, item.encoded.frame_indices, item.encoded.frame_seats), item.frame_rows
        )
        (answer,) = scored(model, [own], max_row_tokens=500).values()
        assert answer.argmax == said
        assert answer.generated


def test_right_and_wrong():
    assert Scored((5, 6, 1), (5, 6, 1)).generated
    early = Scored((5, 6, 1), (5, 6, 9))  # does not stop where it should
    assert early.teacher_forced
    assert not early.generated
    wrong = Scored((5, 6, 1), (5, 7, 1))
    assert not wrong.teacher_forced
    assert wrong.said == (5, 7)
    assert Scored((5, 1), (8, 1)).said == (8,)


def test_rows_hold_every_item_once_and_no_more_than_they_may():
    lengths = [*np.random.default_rng(0).integers(1, 50, 200).tolist(), 500]
    rows = pack_rows(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(201))
    assert all(sum(lengths[i] for i in row) <= 100 for row in rows if row != [200])
    assert [200] in rows
    assert len(rows) < 70
    assert pack_rows([], 10) == []
    with pytest.raises(InputError, match="at least 1"):
        pack_rows([1], 0)


def test_features_do_not_depend_on_how_many_go_at_once():
    model = lively_model(TOKENIZER)
    once = encode_frames(model, BANK.frames_NHW3)
    torch.testing.assert_close(encode_frames(model, BANK.frames_NHW3, frames_at_once=7), once)
    assert encode_frames(model, BANK.frames_NHW3[:0]).shape == (0, 4, 32)
