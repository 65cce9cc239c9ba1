"""Bring one source into the workspace: whole, checked, limited and paced, from HTTP, S3, a path or a page."""
