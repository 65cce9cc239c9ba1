"""Language models that caption clips and write questions: endpoints over HTTP, or a model in this process."""

from longvila.curation.language.opening import check_model, open_model
from longvila.curation.language.prompts import Prompt, load_prompt
from longvila.curation.language.protocol import Completion, LanguageModel, Message

__all__ = [
    "Completion",
    "LanguageModel",
    "Message",
    "Prompt",
    "check_model",
    "load_prompt",
    "open_model",
]
