import numpy as np
import pytest
import torch

from longvila.inference.cache import KvCache
from longvila.inference.generate import generate, repeats
from longvila.inference.prefill import prefill
from longvila.parallel import Layout, make_attend, make_groups, register_attention
from longvila.records import Turn
from longvila.text import encode_prompt
from tests.evaluation.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def _registered():
    register_attention()


def prompt_and_features(model, num_frames=7, *, seed=0):
    prompt = encode_prompt(
        [Turn(role="human", text="<frames> digit on red")],
        TOKENIZER,
        num_frames=num_frames,
        tokens_per_frame=model.tokens_per_frame,
        frame_separator_ids=(5,),
    )
    width = model.llm.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_frames, model.tokens_per_frame, width, generator=generator)
    return prompt, features.to(model.llm.dtype)


def hidden_without_cache(model, prompt, features, extra=()):
    """The last hidden state when everything is read at once, by the attention that training uses."""
    ids = torch.tensor([*prompt.input_ids.tolist(), *extra])[None]
    layout = Layout((ids.shape[1],))
    ids = torch.nn.functional.pad(ids, (0, layout.padded_length - ids.shape[1]))
    seats = (prompt.frame_seats[:, None] + np.arange(model.tokens_per_frame)).reshape(-1)
    embeds = model.embed(ids, features.flatten(0, 1), torch.from_numpy(seats))
    positions = torch.from_numpy(layout.position_ids())[None]
    hidden = model.decode(embeds, positions, attend=make_attend(layout, make_groups()))
    return hidden[0, layout.num_tokens - 1]


@torch.no_grad()
@pytest.mark.parametrize("chunk_tokens", [1, 5, 16, 4096])
def test_prefill_in_chunks_is_the_same_as_at_once(chunk_tokens):
    model = tiny_model(TOKENIZER, dtype=torch.float64)
    prompt, features = prompt_and_features(model)
    cache = KvCache()
    hidden = prefill(model, prompt, features, cache, chunk_tokens=chunk_tokens)
    assert cache.num_tokens == prompt.num_tokens
    torch.testing.assert_close(hidden, hidden_without_cache(model, prompt, features), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_prefill_goes_on_from_what_the_cache_holds():
    model = tiny_model(TOKENIZER, dtype=torch.float64)
    prompt, features = prompt_and_features(model)
    whole = prefill(model, prompt, features, cache := KvCache())
    cache.roll_back(13)  # in the middle of a frame
    torch.testing.assert_close(prefill(model, prompt, features, cache), whole, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cached_decoding_says_what_reading_everything_again_says(seed):
    model = tiny_model(TOKENIZER, seed=seed, dtype=torch.float64)
    prompt, features = prompt_and_features(model, seed=seed)
    cache = KvCache()
    said = generate(
        model,
        prefill(model, prompt, features, cache),
        cache,
        end_ids={TOKENIZER.eos_token_id},
        max_new_tokens=12,
    )
    tokens = []
    while len(tokens) < 12:
        token = int(model.lm_head(hidden_without_cache(model, prompt, features, tokens)).argmax())
        if token == TOKENIZER.eos_token_id:
            break
        tokens.append(token)
    assert said.tokens == tuple(tokens)
    assert said.finish == ("length" if len(tokens) == 12 else "end")


@torch.no_grad()
def test_the_end_token_ends_the_answer():
    model = tiny_model(TOKENIZER)
    prompt, features = prompt_and_features(model)
    cache = KvCache()
    hidden = prefill(model, prompt, features, cache)
    first = int(model.lm_head(hidden).argmax())
    said = generate(model, hidden, cache, end_ids={first}, max_new_tokens=5)
    assert said == ((), "end")
    assert cache.num_tokens == prompt.num_tokens


@torch.no_grad()
def test_logits_that_are_not_numbers_are_said():
    model = tiny_model(TOKENIZER)
    prompt, features = prompt_and_features(model)
    cache = KvCache()
    hidden = prefill(model, prompt, features, cache)
    assert generate(model, hidden * torch.nan, cache, end_ids=set(), max_new_tokens=5) == ((), "not_a_number")


@torch.no_grad()
def test_going_round_in_circles_is_stopped():
    model = tiny_model(TOKENIZER)
    prompt, features = prompt_and_features(model)
    head = model.lm_head
    head.weight.zero_()  # every logit is equal: the first token of the vocabulary, for ever
    cache = KvCache()
    said = generate(model, prefill(model, prompt, features, cache), cache, end_ids=set(), max_new_tokens=500)
    assert said.finish == "repetition"
    assert len(said.tokens) == 24


def test_repetition_is_one_phrase_many_times():
    assert repeats([1] * 24)
    assert repeats([9, 9, *[1, 2, 3] * 8])
    assert not repeats([1] * 23)
    assert not repeats([1, 2, 3] * 7)
    assert not repeats(list(range(100)))
