"""``python -m flows.cli.register POOL PREFECT_YAML FOLDER``: make or renew work pool and deployments.

Runs as a process of its own because Prefect reads its settings when it is imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessWorker


def pool_template(folder: str) -> dict[str, Any]:
    """The process pool's job template with ``folder`` to work in, so that relative paths are ours."""
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["working_dir"]["default"] = folder
    return template


def main(pool: str, deployments: Path, folder: str) -> int:
    """Create or update the pool, then let Prefect's own command register the deployments."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=pool, type="process", base_job_template=pool_template(folder)), overwrite=True
        )
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(deployments),
    ]
    return subprocess.run(command, cwd=deployments.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
