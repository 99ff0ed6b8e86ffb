"""What goes to another process: a chain is opened anew where it arrives; what belongs to one process says so."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from signed_chains import PUBLIC, SECRET

import tensordelta as td
from tensordelta.stores import Retries, open_store

STATE = {"w": np.arange(2000, dtype=np.float32)}


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1, memory=1 << 30, key=SECRET)
    chain.publish(STATE)
    return td.open(tmp_path / "chain", threads=1, memory=1 << 30, trusted_keys=[PUBLIC])


def _load(chain: td.Chain) -> tuple[int, list[int], float]:
    return chain.threads, chain.versions(), float(chain.load()["w"][-1])


@pytest.mark.slow
def test_a_chain_in_another_process(chain: td.Chain) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_load, (chain,)) == (1, [0], 1999.0)


def test_a_chain_that_was_pickled(chain: td.Chain) -> None:
    for other in (pickle.loads(pickle.dumps(chain)), copy.copy(chain), copy.deepcopy(chain)):
        assert (other.id, other.address, _load(other)) == (chain.id, chain.address, _load(chain))
        assert other._reader.memory == 1 << 30
        assert other._reader.trust is not None and other._reader.trust.keys == chain._reader.trust.keys
    unsigned = td.open(chain.address)
    pickle.loads(pickle.dumps(unsigned)).publish(STATE)
    assert unsigned.versions() == [0, 1] and chain.versions() == [0]


def test_what_a_reader_has_held_goes_with_it(chain: td.Chain) -> None:
    td.open(chain.address, key=SECRET).publish(STATE)
    chain.load()
    with pytest.raises(td.UntrustedError, match="older than 1"):
        pickle.loads(pickle.dumps(chain)).load(0)


def test_a_chain_that_another_one_has_replaced(chain: td.Chain) -> None:
    pickled = pickle.dumps(td.open(chain.address))
    path = Path(chain.address, "chain.json")
    path.write_text(path.read_text().replace(chain.id, chain.id[:-1] + ("0" if chain.id[-1] != "0" else "1")))
    with pytest.raises(td.ConflictError):
        pickle.loads(pickled)


def test_no_secret_travels(chain: td.Chain) -> None:
    with pytest.raises(TypeError, match="secret key"):
        pickle.dumps(td.open(chain.address, key=SECRET))
    given = {"access_key_id": "x", "secret_access_key": "secret", "region": "us-east-1"}
    for address, options in (("s3://bucket/run", given), ("hf://buckets/me/run", {"token": "secret"})):
        with pytest.raises(TypeError, match="environment"):
            pickle.dumps(open_store(address, options=options))
    store = pickle.loads(pickle.dumps(open_store("s3://bucket/run", options={"retries": Retries(2)})))
    assert (store.address, store.retries.attempts) == ("s3://bucket/run", 2)
    store = pickle.loads(pickle.dumps(open_store("hf://buckets/me/run", options={"retries": Retries(2)})))
    assert (store.address, store.retries.attempts) == ("hf://buckets/me/run", 2)


def test_what_belongs_to_one_process(chain: td.Chain) -> None:
    with td.open(chain.address).publisher() as publisher, td.Follower(chain, chain.load()) as follower:
        ticket = publisher.submit(STATE)
        for each in (publisher, ticket, follower):
            with pytest.raises(TypeError, match="belongs to one process"):
                pickle.dumps(each)
            with pytest.raises(TypeError, match="belongs to one process"):
                copy.deepcopy(each)
