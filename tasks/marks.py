"""Done-markers for steps whose output is no manifest: a JSON object named by all that it depends on."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from longvila.config.model import Settings
from longvila.records import content_id
from longvila.storage import Workspace


class Mark(Settings):
    """Where the marker of one piece of work lies."""

    key: str

    def read(self, workspace: Workspace, model: type[BaseModel]) -> BaseModel | None:
        """What was written when the work was done; none when it is still to be done."""
        if not workspace.storage.exists(self.key):
            return None
        try:
            return model.model_validate_json(workspace.storage.get_bytes(self.key))
        except ValidationError:
            return None  # of an older version: the work is done again

    def write(self, workspace: Workspace, done: BaseModel) -> None:
        """Say that the work is done."""
        workspace.storage.put_bytes(self.key, done.model_dump_json(indent=2).encode())


def mark_for(step: str, *parts: object) -> Mark:
    """The marker of a step for these settings and inputs (anything that JSON can say, and models)."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return Mark(key=f"manifests/{step}/{content_id(step, plain)}.json")
