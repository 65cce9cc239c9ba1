"""Prompts: YAML files in ``datasets/prompts``, named in every record that was made with them.

A prompt's id is its name, version and content hash, so a changed word is another prompt. Templates are Jinja:
whatever they name has to be given, and what is given is never read as a template itself.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from longvila.config.load import load_settings
from longvila.config.model import NAME, Settings
from longvila.config.roots import dataset_roots
from longvila.curation.language.protocol import Message
from longvila.errors import ConfigError, InputError


class Prompt(Settings):
    """One prompt as it is written in its file."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    purpose: str = Field(description="what it is for, in a sentence")
    system: str = ""
    user: str = Field(min_length=1, description="a Jinja template")
    answer: dict[str, Any] | None = Field(
        default=None, description="the JSON schema of the answer; none: plain text"
    )

    @cached_property
    def id(self) -> str:
        """Name, version and eight digits of the hash of everything in it."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=True)
        return f"{self.name}-v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def messages(self, values: dict[str, Any], *, images: tuple[bytes, ...] = ()) -> list[Message]:
        """Fill the template in. Raises ``ConfigError`` when it names what is not in ``values``."""
        import jinja2
        from jinja2.sandbox import SandboxedEnvironment

        environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True)
        try:
            text = environment.from_string(self.user).render(values).strip()
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"prompt {self.name!r}: {error}. It may use: {', '.join(sorted(values))}."
            ) from error
        system = [Message(role="system", text=self.system.strip())] if self.system.strip() else []
        return [*system, Message(role="user", text=text, images=images)]


def load_prompt(name_or_path: str) -> Prompt:
    """Read a prompt by path, or by name as ``datasets/prompts/NAME.yaml``. Raises ``InputError``."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"There is no prompt file {path}. Give the path of a YAML file, or a name.")
        return load_settings(path, Prompt, what="prompt")
    for root in dataset_roots():
        found = root / "prompts" / f"{name_or_path}.yaml"
        if found.is_file():
            return load_settings(found, Prompt, what="prompt")
    known = sorted({file.stem for root in dataset_roots() for file in root.glob("prompts/*.yaml")})
    raise InputError(f"There is no prompt {name_or_path!r}. Known prompts: {', '.join(known) or 'none'}.")
