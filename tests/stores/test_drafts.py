"""Drafts in buckets: ranks that share nothing but a store, one of which is away, and a manifest that is put last."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from draft_ranks import model, rows
from hub_server import Hub
from places import S3

import tensordelta as td

RANKS = 4
Open = Callable[..., td.Chain]


@pytest.fixture(params=["hub", "s3"])
def open_chain(request: pytest.FixtureRequest) -> Open:
    """Opens one chain, as each rank does on its own."""
    if request.param == "hub":
        hub: Hub = request.getfixturevalue("hub")
        address, options = f"hf://buckets/{request.getfixturevalue('bucket')}/run", {"endpoint": hub.address}
        options["token"] = "token"
    else:
        s3: S3 = request.getfixturevalue("s3")
        address, options = f"s3://{s3.bucket()}/run", dict(s3.options)
    return lambda **more: td.open(address, store_options=options, threads=1, **more)


def encode(open_chain: Open, draft: td.Draft, version: int, **options: Any) -> list[dict[str, Any]]:
    def one(rank: int) -> dict[str, Any]:
        base = rows(model(version - 1), rank, RANKS) if version else None
        return open_chain().join(draft.to_json()).encode(rows(model(version), rank, RANKS), base, **options)

    with ThreadPoolExecutor(RANKS) as ranks:
        return list(ranks.map(one, range(RANKS)))


def test_ranks_write_to_a_bucket(open_chain: Open) -> None:
    chain = open_chain(create=True)
    for version, options in ((0, {}), (1, {"order": "exponent"})):
        draft = chain.draft(model(version))
        found = encode(open_chain, draft, version, **options)
        with pytest.raises(td.MissingError, match="none claims words"):
            draft.commit(found[1:])
        with pytest.raises(td.MalformedError, match="too"):
            draft.commit([*found, draft.encode({"norm": model(version)["norm"]}, model(version))])
        assert chain.newest() == (None if version == 0 else 0)
        done = draft.commit(found)
        assert done.version == version and draft.commit(found).created == done.created
        assert open_chain().load().equals(td.State.from_arrays(model(version)))
    assert open_chain().verify(deep=True).ok


def test_a_rank_that_wrote_elsewhere(open_chain: Open) -> None:
    """A pack that is not in this store is seen before a manifest names it."""
    chain = open_chain(create=True)
    draft = chain.draft(model(0))
    found = encode(open_chain, draft, 0)
    pack = found[2]["packs"][0]["path"]
    store = draft._reader.store
    data = store.read(pack)
    store.delete(pack)
    with pytest.raises(td.MissingError) as caught:
        draft.commit(found)
    assert (caught.value.object, caught.value.rule) == (pack, "TD-OBJ-012")
    store.put(pack, [data])
    draft.commit(found)
    assert open_chain().load().equals(td.State.from_arrays(model(0)))
