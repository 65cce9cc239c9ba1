"""Words of questions and answers: cleaned, compared, and searched for what must not stand in them."""

from __future__ import annotations

import re
import unicodedata

_TOKEN = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\\W_]+"
)  # a letter of scripts without spaces
_NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"
)  # fmt: skip
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_STOP = {
    "a", "an", "the", "this", "that", "these", "those", "there", "here", "it", "its", "is", "are",
    "was", "were", "be", "been", "being", "am", "do", "does", "did", "done", "has", "have", "had",
    "having", "will", "would", "can", "could", "of", "in", "on", "at", "to", "for", "from", "by",
    "with", "into", "onto", "and", "or", "as", "what", "which", "who", "whom", "whose", "how",
    "when", "where", "why", "he", "she", "they", "him", "her", "his", "hers", "them", "their",
    "video", "seen", "shown", "show", "shows",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_LETTERED = re.compile(r"\([a-hA-H]\)")
_SOURCE = re.compile(
    r"""\bcaption(?:s|ed)?\b | \btime\ ?stamps?\b | \bdigest\b | \[\d+\]
    | \b(?:clip|segment|frame|shot|scene|part|chunk|section|description)s?\s*(?:no\.?|number|\#|id)?\s*\[?\d+
    | \b(?:the|this|that|these|each|video|given|provided|above|last|first|next|previous)\s+(?:video\s+)?
      (?:clip|segment|description|transcript)s?\b
    | \b(?:this|that|each|video)\s+frames?\b
    | \baccording\ to\ (?:the|this|what)\b
    | \bbased\ on\ the\ (?:text|information|context|video\ description)\b
    | \b(?:as|is|are|was|were)\ (?:described|mentioned|stated)\b
    | \b(?:described|mentioned|stated)\ (?:in|as)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<\s*/?\s*(?:frames?|images?|videos?|s|captions?|digest|vila/\w+|im_start|im_end)\s*/?\s*>|<\|[^<>]{0,60}\|?>"
    r"|\[/?INST\]|<<\s*/?SYS\s*>>|<(?:pad|unk|bos|eos|start_of_turn|end_of_turn)>",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """Return ``text`` on one line, without control characters and marks that change the writing direction."""
    composed = unicodedata.normalize("NFC", text)
    kept = (" " if c.isspace() else c for c in composed if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(kept).split())


def words(text: str) -> list[str]:
    """Return the words in small letters; small number words are digits."""
    found: list[str] = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return [_NUMBERS.get(word, word) for word in found]


def content_words(text: str) -> list[str]:
    """Return the words that carry meaning, in their order."""
    return [_stem(word) for word in words(text) if word not in _STOP]


def meaning(text: str) -> frozenset[str]:
    """Return the content words of a text as a set; all its words when none carries meaning."""
    return frozenset(content_words(text)) or frozenset(words(text))


def same_words(first: str, second: str) -> bool:
    """Whether two answers are the same but for case, punctuation, articles and number words."""
    return _bare(first) == _bare(second)


def share_found(answer: str, text: str) -> float:
    """Return the share of an answer's content words that stand in ``text``; 1 when it has none."""
    asked = set(content_words(answer))
    return len(asked & set(content_words(text))) / len(asked) if asked else 1.0


def contains(text: str, part: str) -> bool:
    """Whether the words of ``part`` stand in ``text`` one after another, or all its content words do."""
    inside, here = words(part), words(text)
    if not inside:
        return False
    runs = any(here[i : i + len(inside)] == inside for i in range(len(here) - len(inside) + 1))
    meant = set(content_words(part))
    return runs or (len(meant) > 1 and meant <= set(content_words(text)))


def speaks_of_source(text: str) -> str | None:
    """Return the words that betray that captions were read and no video watched."""
    found = _SOURCE.search(text)
    return found.group(0) if found else None


def markup(text: str) -> str | None:
    """Return what would mean something to a model's tokenizer or to our placeholders."""
    found = _MARKUP.search(text)
    return found.group(0) if found else None


def _bare(text: str) -> list[str]:
    """Return the words without articles; "(a)" is none."""
    found = words(text)
    bare = [word for word in found if word not in _ARTICLES]
    return found if _LETTERED.search(text) or not bare else bare


def _stem(word: str) -> str:
    """Take common English endings off, so that "carries" and "carry" or "boxes" and "box" meet."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2 and not word.endswith("ss"):
            stem = word[: -len(ending)]
            return stem[:-1] if ending != "s" and stem[-1:] == stem[-2:-1] else stem.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word
