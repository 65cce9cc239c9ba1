"""Tokenizers: one made from a data set's own words, or a published one made ready for frames."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from longvila.errors import InputError

IMAGE_TOKEN = "<image>"
"""Keeps the seat of one visual token. The model never looks up its embedding."""

FRAMES_MARK = "<frames>"
"""Where a sample's frames go in its text; replaced by placeholders before the tokenizer sees it."""

SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>", IMAGE_TOKEN)

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")

# A word, a line end (it may separate frames) or one sign. Spaces are not tokens.
WORD_PATTERN = r"\n|\w+|[^\w\s]"

# No role tokens: the question's last word is followed by the answer, so that a model of two layers can
# look the answer up at that word. The end token closes each answer. The first token is always the same, so
# that frames can tell how far from the start they are.
WORD_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}"
    "{% endfor %}"
)


def build_word_tokenizer(
    texts: Iterable[str], *, max_context: int = 1_000_000_000
) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the special ones, then the words and signs of ``texts``, sorted.

    Case is not kept. The same set of words gives the same ids, whatever the order of ``texts``. A word that
    was not there becomes ``<unk>``. ``max_context`` is written down as the tokenizer's ``model_max_length``.
    """
    splitter = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    words = {"\n"}
    for text in set(texts):
        words.update(word for word, _ in splitter.pre_tokenize_str(text.replace(FRAMES_MARK, " ").lower()))
    words.difference_update(SPECIAL_TOKENS)
    vocabulary = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *sorted(words)))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    backend.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[IMAGE_TOKEN],
        chat_template=WORD_CHAT_TEMPLATE,
        model_max_length=max_context,
        padding_side="right",
    )


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder or a hub id, and make it ready for frames (see ``prepare_tokenizer``).

    Raises ``InputError`` when there is none, or when it has no fast (Rust) implementation.
    """
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(
            f"{folder} holds no tokenizer: none of {', '.join(TOKENIZER_FILES)}. Copy the whole folder again."
        )
    # AutoTokenizer picks a class by the model beside it and makes a byte-level BPE of any file there.
    whole = (folder / "tokenizer.json").is_file()
    try:
        kind = PreTrainedTokenizerFast if whole else AutoTokenizer
        tokenizer = kind.from_pretrained(str(name), padding_side="right")
    except (OSError, ValueError) as error:
        raise InputError(
            f"No tokenizer could be loaded from {str(name)!r}: {error}. "
            "Give a folder that holds tokenizer.json and tokenizer_config.json, or a name on the hub."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"The tokenizer of {str(name)!r} is a {type(tokenizer).__name__} without offsets. "
            "Use a folder that holds a tokenizer.json (a fast tokenizer)."
        )
    return prepare_tokenizer(tokenizer)


def prepare_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Add what frames and the published layout need and is lacking: ``[BOS]``, ``[PAD]``, ``<image>``.

    The names are those of the published Qwen2 checkpoints. ``<image>`` comes last, so that the ids of the
    words stay as they are and the embeddings need no row for it. Changes ``tokenizer`` and returns it.
    """
    if tokenizer.eos_token is None:
        raise InputError(
            f"The tokenizer {tokenizer.name_or_path!r} has no eos_token, so no answer could ever end. "
            "Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": "[BOS]"})
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    return tokenizer


def image_token_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of ``<image>``; raise ``InputError`` when the tokenizer does not know it."""
    number = tokenizer.backend_tokenizer.token_to_id(IMAGE_TOKEN)  # get_vocab would copy all of it each time
    if number is None:
        raise InputError(
            f"The tokenizer {tokenizer.name_or_path!r} does not know {IMAGE_TOKEN}. "
            "Pass it through longvila.text.prepare_tokenizer first."
        )
    return number


def reserved_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return the tokens that text from outside must not contain: all that mean something to the model."""
    return _reserved_tokens(tokenizer, len(tokenizer))


@lru_cache(maxsize=16)
def _reserved_tokens(tokenizer: PreTrainedTokenizerFast, size: int) -> tuple[str, ...]:
    # The size is part of the key: tokens may be added to a tokenizer.
    del size
    return tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)


def separator_ids(tokenizer: PreTrainedTokenizerFast, separator: str | None) -> tuple[int, ...]:
    """Return the ids that stand after each frame's tokens; none for no separator."""
    if not separator:
        return ()
    return tuple(tokenizer.backend_tokenizer.encode(separator, add_special_tokens=False).ids)
