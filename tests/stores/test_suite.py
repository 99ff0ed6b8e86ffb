"""The suite of `tensordelta.stores.testing` over each store there is, and one in memory as a third party writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import Hub
from memory import MemoryStore
from places import QUICK, S3

from tensordelta.stores import FolderStore, Store, open_store
from tensordelta.stores.cloud import CloudStore
from tensordelta.stores.hub import HubStore
from tensordelta.stores.testing import StoreTests


class TestMemory(StoreTests):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestFolder(StoreTests):
    many = 50  # a folder has no pages

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FolderStore(tmp_path / "chain")

    def again(self, store: FolderStore) -> Store:
        return FolderStore(store.root)


class TestHub(StoreTests):
    large = 3 << 20
    many = 250

    @pytest.fixture(params=["", "runs/one"])
    def store(self, hub: Hub, bucket: str, request: pytest.FixtureRequest) -> Store:
        hub.page = 100
        return HubStore(bucket, request.param, endpoint=hub.address, token="token", retries=QUICK)

    def again(self, store: HubStore) -> Store:
        api = store._api
        return open_store(store.address, options={"endpoint": api.endpoint, "token": "token", "retries": QUICK})


class TestS3(StoreTests):
    many = 1010

    @pytest.fixture(params=["", "/runs/one"])
    def store(self, s3: S3, request: pytest.FixtureRequest) -> Store:
        address = f"s3://{s3.bucket()}{request.param}"
        return open_store(address, options={**s3.options, "retries": QUICK})

    def again(self, store: CloudStore) -> Store:
        return store
