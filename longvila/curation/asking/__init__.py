"""Questions written by a language model over captions, or measured of clips; and what each has to pass."""

from longvila.curation.asking.protocol import QuestionWriter

__all__ = ["QuestionWriter"]
