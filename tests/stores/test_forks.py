"""Chains in forked children: in a folder they work, in an object store they say at once that they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from forks import lines
from hub_server import Hub
from places import S3

ADVICE = ("is a fork", "'spawn'", "open the chain in it")


def test_an_object_store_that_the_parent_has_used(s3: S3) -> None:
    program = """
chain = td.open(sys.argv[1], create=True)
chain.publish(weights(0))
state = chain.load()
print(state["w"][0])
forked(lambda: td.open(sys.argv[1]))
forked(lambda: chain.newest())
forked(lambda: chain.publish(weights(1)))
forked(lambda: next(chain.follow(state)))
forked(lambda: td.open(sys.argv[1].replace("run", "other"), create=True))
print(chain.publish(weights(1)).version)
"""
    first, *children, last = lines(program, f"s3://{s3.bucket()}/run", **s3.environment)
    assert (first, last) == ("0.0", "1")
    assert len(children) == 5
    for said in children:
        assert said.startswith("RuntimeError: ") and all(each in said for each in ADVICE), said


def test_an_object_store_that_only_children_use(s3: S3) -> None:
    program = """
for step in range(2):
    forked(lambda: td.open(sys.argv[1], create=True).publish(weights(step)).version)
"""
    assert lines(program, f"s3://{s3.bucket()}/run", **s3.environment) == ["0", "1"]


def test_a_bucket_of_the_hub(hub: Hub, bucket: str) -> None:
    hub.processes = True
    program = """
chain = td.open(sys.argv[1], create=True)
chain.publish(weights(0))
forked(lambda: (chain.load()["w"][0], chain.publish(weights(1)).version))
forked(lambda: (td.open(sys.argv[1]).load()["w"][0], td.open(sys.argv[1]).publish(weights(2)).version))
"""
    said = lines(program, f"hf://buckets/{bucket}/run", HF_ENDPOINT=hub.address, HF_TOKEN="token")
    assert [each.count("0.0") + each.count("1.0") for each in said] == [1, 1]
    assert [each[-2] for each in said] == ["1", "2"]


#: A thread that is in the middle of publishing version 1 when `inside` is set, until `go` is.
PUBLISHING = """
inside, go = threading.Event(), threading.Event()

def listen(event):
    if event.kind == "published" and event.version == 1:
        inside.set()
        go.wait()

chain = td.open(sys.argv[1], create=True, on_event=listen)
chain.publish(weights(0))
thread = threading.Thread(target=lambda: chain.publish(weights(1)))
thread.start()
inside.wait()
"""


def test_a_fork_while_another_thread_publishes(tmp_path: Path) -> None:
    """The child does not wait for a lock whose holder it lacks."""
    program = """
def publish():
    os.environ["TENSORDELTA_CACHE"] += "-of-the-child"
    return td.open(chain.address).load()["w"][0], chain.publish(weights(2)).version

forked(publish)
go.set()
thread.join()
"""
    (said,) = lines(PUBLISHING + program, tmp_path / "chain")
    assert said in ("(np.float32(1.0), 2)", "(1.0, 2)") or said.startswith("ConflictError"), said


def test_a_child_that_lives_on_keeps_no_lock(tmp_path: Path) -> None:
    """As workers do that load data for a trainer."""
    program = """
child = os.fork()
if not child:
    time.sleep(3600)
go.set()
thread.join()
try:
    print(td.open(chain.address).publish(weights(2)).version)
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
    assert lines(PUBLISHING + program, tmp_path / "chain") == ["2"]


def test_a_child_that_outlives_a_killed_parent_keeps_no_lock(tmp_path: Path) -> None:
    program = """
from pathlib import Path
td.open(sys.argv[1], create=True).publish(weights(0))
note = Path(sys.argv[1]) / ".child"
parent = os.fork()
if not parent:
    inside = threading.Event()
    chain = td.open(sys.argv[1], create=True, on_event=lambda event: (inside.set(), time.sleep(3600)))
    threading.Thread(target=lambda: chain.publish(weights(1)), daemon=True).start()
    inside.wait()
    child = os.fork()
    if not child:
        note.write_text(str(os.getpid()))
        time.sleep(3600)
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(parent, 0)
try:
    print(td.open(sys.argv[1]).publish(weights(2)).version)
finally:
    os.kill(int(note.read_text()), signal.SIGKILL)
"""
    assert lines(program, tmp_path / "chain") == ["2"]


def test_a_fork_while_another_thread_applies_an_update(tmp_path: Path) -> None:
    """The child's copy has words of two versions, and is taken for neither."""
    program = """
from tensordelta.state.update import Update
chain = td.open(sys.argv[1], create=True)
for step in range(3):
    chain.publish(weights(step * 100))
state = chain.load(0)
update, later = chain.prepare(state, 1), chain.prepare(state, 2)
inside, go = threading.Event(), threading.Event()
swap = Update._swap_in
Update._swap_in = lambda *arguments: (inside.set(), go.wait(), swap(*arguments))
thread = threading.Thread(target=update.apply)
thread.start()
inside.wait()

def child():
    Update._swap_in = swap
    assert state.version is None
    for stale in (update, later):
        try:
            stale.apply()
        except td.WrongBaseError:
            pass
        else:
            return "a stale update was applied"
    chain.prepare(state).apply()
    return state.version, state.equals(td.State.from_arrays(weights(200)))

forked(child)
go.set()
thread.join()
print(state.version, state.equals(td.State.from_arrays(weights(100))))
"""
    assert lines(program, tmp_path / "chain") == ["(2, True)", "1 True"]


def test_a_fork_while_another_thread_writes_to_a_holder(tmp_path: Path) -> None:
    """The child's copy is of no known version, and finds its lock free."""
    program = """
from tensordelta.state.holder import Holder
chain = td.open(sys.argv[1], create=True)
chain.publish(weights(0))
manifest = chain.manifest(0)
holder = Holder(chain.layout(0), {})
holder.hold(0, chain.id, (manifest.layout, manifest.fingerprint))
before = holder.generation
with holder.lock:
    forked(lambda: (holder.version, holder.fingerprint, holder.generation != before))
forked(lambda: holder.version)
print(holder.version, holder.generation == before)
"""
    assert lines(program, tmp_path / "chain") == ["(None, None, True)", "0", "0 True"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("publisher.submit(weights(1))", "RuntimeError: the publisher"),
        ("publisher.flush()", "RuntimeError: the publisher"),
        ("ticket.result()", "RuntimeError: the publisher"),
        ("ticket.wait(1)", "RuntimeError: the publisher"),
        ("ticket.cancel()", "RuntimeError: the publisher"),
        ("publisher.close()", "None"),
        ("publisher.__exit__(None, None, None)", "None"),
        ("follower.wait()", "RuntimeError: the follower"),
        ("follower.apply()", "RuntimeError: the follower"),
        ("follower.close()", "None"),
    ],
)
def test_what_belongs_to_one_process(tmp_path: Path, call: str, expected: str) -> None:
    program = f"""
go = threading.Event()
chain = td.open(sys.argv[1], create=True, on_event=lambda event: go.wait())
publisher = chain.publisher()
ticket = publisher.submit(weights(0))
follower = td.Follower(td.open(sys.argv[1]), {{"w": np.zeros(3)}})
forked(lambda: {call})
go.set()
publisher.close()
follower.close()
print(ticket.result().version)
"""
    said, version = lines(program, tmp_path / "chain")
    assert said.startswith(expected) and version == "0"
