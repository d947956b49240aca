"""A server that speaks S3, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["S3", "s3_server"]


class S3:
    """Attributes:
    bucket: one of its own, empty at first. Servers of one process share what they have.
    environment: the variables with which a process reaches it.
    """

    def __init__(self, url: str, bucket: str) -> None:
        import boto3

        self.bucket = bucket
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
        }
        self.client: Any = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket=bucket)

    def keys(self) -> list[str]:
        """The objects that are there."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def parts(self) -> list[str]:
        """The objects that have parts and were not completed."""
        return [found["Key"] for found in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]


@contextmanager
def s3_server() -> Iterator[S3]:
    """Inside, one runs, and this process's environment leads there."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        s3 = S3(f"http://{host}:{port}", f"files-{port}")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3.environment.items():
                patch.setenv(name, value)
            yield s3
    finally:
        server.stop()
