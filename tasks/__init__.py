"""One Prefect task per unit of work: a thin coat (retries, timeout, progress, artifact) over a library call.

A task takes references (a workspace, manifest keys) and small settings, never payloads, and returns the same.
``tasks.registry`` lists them all; ``longvila task run NAME`` runs one without any server.
"""
