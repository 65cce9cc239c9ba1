"""Text to token ids: tokenizers, chat templates, placeholders and labels."""

from longvila.text.chat import ChatFormat, chat_format
from longvila.text.encode import (
    IGNORE_INDEX,
    Encoded,
    encode_prompt,
    encode_sample,
    thin_frames,
)
from longvila.text.tokenizer import (
    FRAMES_MARK,
    IMAGE_TOKEN,
    build_word_tokenizer,
    image_token_id,
    load_tokenizer,
    prepare_tokenizer,
    separator_ids,
)

__all__ = [
    "FRAMES_MARK",
    "IGNORE_INDEX",
    "IMAGE_TOKEN",
    "ChatFormat",
    "Encoded",
    "build_word_tokenizer",
    "chat_format",
    "encode_prompt",
    "encode_sample",
    "image_token_id",
    "load_tokenizer",
    "prepare_tokenizer",
    "separator_ids",
    "thin_frames",
]
