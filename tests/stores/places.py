"""Places for chains in tests: how to reach the servers of this machine that answer as the Hub and as S3 do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from tensordelta.stores import Retries

#: Tries again almost as often as by default, in no time.
QUICK = Retries(attempts=4, first=0.01, longest=0.02)


@dataclass(frozen=True)
class S3:
    """A server that speaks S3.

    Attributes:
        endpoint: its address.
    """

    endpoint: str

    @property
    def options(self) -> dict[str, object]:
        """What `store_options` have to be."""
        return {
            "endpoint": self.endpoint,
            "client_options": {"allow_http": True},
            "virtual_hosted_style_request": False,
            "access_key_id": "test",
            "secret_access_key": "test",
            "region": "us-east-1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for a process of its own."""
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self) -> str:
        """A new bucket."""
        name = f"chains-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """Another client, for what no chain does."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
