from tests.storage.fixtures import s3_server, s3_url, storage

__all__ = ["s3_server", "s3_url", "storage"]
