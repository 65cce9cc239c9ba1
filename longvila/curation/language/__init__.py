"""Language models that caption clips and write questions: endpoints over HTTP, or a model in this process."""

from longvila.curation.language.protocol import Completion, LanguageModel, Message

__all__ = ["Completion", "LanguageModel", "Message"]
