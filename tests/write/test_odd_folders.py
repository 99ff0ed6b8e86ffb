"""Folders as they are in the wild: taken whole, or refused, or what is not taken is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folders import INDEX, save
from two_tensors import BOTH, FIRST, ONE, PAIR, SECOND, TWO, lists, read, single

import tensordelta as td

THIRD = "model-00003-of-00003.safetensors"
EXTRA = {"extra": np.ones(2, np.float32)}


def left_out(published: td.Published) -> dict[str, str]:
    return {each.name: each.reason for each in published.left_out}


def index_of(weight_map: object, **more: object) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": weight_map, **more}).encode()


def write(folder: Path, name: str, data: bytes = b"x") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def add(folder: Path, name: str, arrays: dict[str, np.ndarray] = EXTRA) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    td.State.from_arrays(arrays).save(folder / name)


# -- what is not taken is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "model.fp16.safetensors",
        "model (1).safetensors",
        "mtp.safetensors",
        "2_Dense/model.safetensors",
        "consolidated.safetensors",
        "diffusion_pytorch_model.safetensors",
        "model.fp16-00001-of-00001.safetensors",
        "model-00001-of-00001.fp16.safetensors",
        "unet/a/b.safetensors",
    ],
)
def test_other_weights_are_said(chain: td.Chain, tmp_path: Path, name: str, plain: bool) -> None:
    folder = save(tmp_path / "model", single(BOTH), {"config.json": b"{}"})
    add(folder, name)
    published = chain.publish(folder, plain=plain)
    assert read(chain) == lists(BOTH)
    assert left_out(published) == {name: "other weights"}
    assert f"{name} (other weights)" in repr(published)
    assert published.facts()["left_out"] == [{"name": name, "reason": "other weights"}]


def test_a_folder_that_is_taken_whole_leaves_nothing_out(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", PAIR, {"config.json": b"{}", "1_Pooling/config.json": b"{}"})
    published = chain.publish(folder)
    assert published.left_out == () and "not taken" not in repr(published)
    assert chain.publish(BOTH).left_out == () and chain.log()[0].left_out == ()


def test_all_else_that_is_not_taken_is_said(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH), {"config.json": b"{}"})
    expected = {
        "pytorch_model.bin": "weights of another format",
        "pytorch_model.bin.index.json": "other weights",
        "a b.json": "its name has characters that paths of the format lack",
        "é/config.json": "its name has characters that paths of the format lack",
        f"{'long/' * 39}{'x' * 20}": "its path has more than 200 characters",
        "huge.txt": "larger than 64 MiB",
        "dead.json": "a link that leads nowhere",
        "linked/config.json": "a link to a folder",
        "pipe.json": "no regular file",
        "x.lock": "a temporary file",
        ".git/config": "hidden",
        ".gitattributes": "hidden",
        "train.log": "logs of a trainer",
        "trainer_state.json": "logs of a trainer",
    }
    for name in expected:
        if name not in ("dead.json", "linked/config.json", "pipe.json"):
            write(folder, name)
    os.truncate(folder / "huge.txt", 65 << 20)
    (folder / "dead.json").symlink_to("nowhere")
    write(tmp_path, "elsewhere/config.json")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe.json")
    for name in ("linked/config.json", "é/config.json", ".git/config"):
        expected[name.split("/")[0] + "/"] = expected.pop(name)
    published = chain.publish(folder)
    assert left_out(published) == expected
    assert [entry.name for entry in chain.manifest().files] == ["config.json"]


def test_the_command_says_what_is_not_taken(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH))
    add(folder, "adapter_model.safetensors")
    command = [sys.executable, "-m", "tensordelta", "publish", str(tmp_path / "chain"), str(folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "adapter_model.safetensors (other weights)" in shown.stdout and shown.stderr == ""
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout)
    assert found["left_out"] == [{"name": "adapter_model.safetensors", "reason": "other weights"}]


def test_reading_a_folder_logs_the_weights_that_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path / "model", single(BOTH), {".gitattributes": b""})
    assert td.read_state(folder) == BOTH and not caplog.records
    add(folder, "adapter_model.safetensors")
    td.read_state(folder)
    (record,) = caplog.records
    assert "adapter_model.safetensors (other weights)" in record.getMessage() and "hidden" not in record.getMessage()


# -- chains, logs and other checkpoints in the folder ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["deltas", "runs/1/deltas", "a/b"])
def test_a_chain_in_the_folder_is_not_published_into_itself(tmp_path: Path, place: str) -> None:
    folder = save(tmp_path / "out", single(BOTH), {"config.json": b"{}"})
    chain = td.open(folder / place, create=True)
    sizes = [chain.publish(folder).size for _ in range(4)]
    assert sizes[1:] == sizes[1:2] * 3
    assert [entry.name for entry in chain.manifest().files] == ["config.json"]
    assert set(left_out(chain.publish(folder)).values()) <= {"a chain", "logs of a trainer"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["checkpoint-500/config.json"], "another checkpoint"),
        (["global_step10/zero.json"], "another checkpoint"),
        (["best/tokenizer.json", "best/config.json", "best/pytorch_model.bin"], "another checkpoint"),
        (["last/trainer_state.json", "last/config.json"], "another checkpoint"),
        (["serving/.tensordelta/state.json", "serving/config.json"], "another checkpoint"),
        (["runs/May01/x.json"], "logs of a trainer"),
        (["wandb/run-1/files/config.yaml"], "logs of a trainer"),
        (["other/events.out.tfevents.1.host.0"], "logs of a trainer"),
        (["completions/step_1.parquet"], "logs of a trainer"),
    ],
)
def test_what_a_trainer_leaves_is_not_published(chain: td.Chain, tmp_path: Path, files: list[str], reason: str) -> None:
    folder = save(tmp_path / "out", single(BOTH), {"config.json": b"{}", **dict.fromkeys(files, b"{}")})
    published = chain.publish(folder)
    assert left_out(published) == {files[0].split("/")[0] + "/": reason}
    assert [entry.name for entry in chain.manifest().files] == ["config.json"]


# -- folders that are refused ------------------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def three_shards(folder: Path) -> None:
    save(folder, {name.replace("-of-00002", "-of-00003"): arrays for name, arrays in PAIR.items()}, index=None)


def dead_shard(folder: Path, *, index: bool) -> None:
    save(folder, PAIR, index=INDEX if index else None)
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("../blobs/gone")


def indexed(weight_map: object) -> Spoil:
    return lambda folder: save(folder, PAIR, {INDEX: index_of(weight_map)})


def beside(name: str, *shards: str, index: bool = False) -> Spoil:
    """A single file beside shards of the same name, or beside an index of shards."""

    def spoil(folder: Path) -> None:
        save(folder, {name: BOTH})
        for shard in shards:
            add(folder, shard)
        if index:
            write(folder, name + ".index.json", index_of({"extra": "model-00001-of-00001.safetensors"}))

    return spoil


INCOMPLETE: dict[str, Spoil] = {
    "a shard is missing, no index": three_shards,
    "the first is missing": lambda folder: save(folder, {SECOND: TWO}),
    "a dead link, no index": lambda folder: dead_shard(folder, index=False),
    "a dead link, index": lambda folder: dead_shard(folder, index=True),
    "the index knows of two of three": lambda folder: (
        three_shards(folder),
        write(
            folder, INDEX, index_of({"w": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors"})
        ),
    ),
    "the index names an absent file": indexed({"w": FIRST, "b": SECOND, "c": THIRD}),
    "the only file is a dead link": lambda folder: (
        folder.mkdir(),
        (folder / "model.safetensors").symlink_to("nowhere"),
    ),
    "a dead model beside an adapter": lambda folder: (
        save(folder, {"adapter_model.safetensors": BOTH}),
        (folder / "model.safetensors").symlink_to("nowhere"),
    ),
    "the index is a dead link": lambda folder: (save(folder, PAIR, index=None), (folder / INDEX).symlink_to("nowhere")),
}

CONTRADICTORY: dict[str, Spoil] = {
    "an absent tensor": indexed({"w": FIRST, "b": SECOND, "mtp.fc.weight": SECOND}),
    "empty": indexed({}),
    "a shard left out": indexed({"w": FIRST}),
    "a tensor left out": lambda folder: save(
        folder, {FIRST: {**ONE, **EXTRA}, SECOND: TWO}, {INDEX: index_of({"w": FIRST, "b": SECOND})}
    ),
    "swapped": indexed({"w": SECOND, "b": FIRST}),
    "one file for both": indexed({"w": FIRST, "b": FIRST}),
    "no map": lambda folder: save(folder, PAIR, {INDEX: b"{}"}),
    "no JSON": lambda folder: save(folder, PAIR, {INDEX: b"<html>"}),
    "a pointer of LFS": lambda folder: save(folder, PAIR, {INDEX: LFS}),
    "shards of two sets": lambda folder: (save(folder, PAIR, index=None), add(folder, THIRD)),
    "shards of an older set beside the index": lambda folder: (save(folder, PAIR), add(folder, THIRD)),
    "a number twice": lambda folder: (save(folder, PAIR, index=None), add(folder, "model-1-of-2.safetensors")),
    "single beside shards": beside("model.safetensors", "model-00001-of-00001.safetensors"),
    "single beside an index": beside("model.safetensors", "model-00001-of-00001.safetensors", index=True),
    "single beside an index alone": beside("model.safetensors", index=True),
    "diffusers' single beside shards": beside(
        "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-00001-of-00001.safetensors"
    ),
    "diffusers' single beside an index": beside("diffusion_pytorch_model.safetensors", index=True),
    "another name's single beside shards": beside("other.safetensors", "other-00001-of-00001.safetensors"),
    "two indices of unusual names": lambda folder: (
        save(folder, {"x-1.safetensors": ONE}, {"x.safetensors.index.json": index_of({"w": "x-1.safetensors"})}),
        add(folder, "y-1.safetensors"),
        write(folder, "y.safetensors.index.json", index_of({"extra": "y-1.safetensors"})),
    ),
}

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", INCOMPLETE)
def test_a_checkpoint_that_is_not_complete_is_refused(chain: td.Chain, tmp_path: Path, kind: str, plain: bool) -> None:
    INCOMPLETE[kind](tmp_path / "model")
    with pytest.raises(td.MissingError) as caught:
        chain.publish(tmp_path / "model", plain=plain)
    assert caught.value.object.startswith(str(tmp_path / "model")) and chain.versions() == []


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", CONTRADICTORY)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    chain: td.Chain, tmp_path: Path, kind: str, plain: bool
) -> None:
    CONTRADICTORY[kind](tmp_path / "model")
    with pytest.raises(td.MalformedError) as caught:
        chain.publish(tmp_path / "model", plain=plain)
    assert caught.value.object.startswith(str(tmp_path / "model")) and chain.versions() == []
    assert caught.value.advice != caught.value.default_advice


def test_the_single_file_may_be_named_where_both_are_there(chain: td.Chain, tmp_path: Path) -> None:
    CONTRADICTORY["single beside shards"](tmp_path / "model")
    chain.publish(tmp_path / "model" / "model.safetensors")
    assert read(chain) == lists(BOTH)


def test_shards_that_are_numbered_from_zero_are_complete(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(save(tmp_path / "m", {"m_0-of-2.safetensors": ONE, "m_1-of-2.safetensors": TWO}, index=None))
    assert read(chain) == lists(BOTH)


def test_one_of_several_files_is_no_checkpoint(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", PAIR)
    with pytest.raises(td.MissingError, match="one of 2 files"):
        chain.publish(folder / FIRST)
    assert chain.versions() == []
    assert chain.publish(td.read_state(folder / FIRST)).words == 8, "read by itself it is a state"


def test_the_folder_of_the_weights_is_named(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "pipeline", {}, {"model_index.json": b"{}"})
    add(folder, "unet/diffusion_pytorch_model.safetensors")
    add(folder, "checkpoint-500/model.safetensors")
    with pytest.raises(td.MissingError) as caught:
        chain.publish(folder)
    assert "checkpoint-500, unet" in caught.value.advice


# -- files that are something else -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (LFS, "Git LFS"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in", "web page"),
        (b"\n  <?xml version='1.0'?><Error><Code>AccessDenied", "web page"),
        (b"\xef\xbb\xbf<html>", "web page"),
        (b'{"error":"Repository not found"}', "text"),
        (b"Invalid username or password.", "text"),
        (b"Entry not found", "text"),
        (b"PK\x03\x04\x00\x00\x08\x08" + bytes(100), "torch.save"),
        (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF"),
        (b"\x1f\x8b\x08\x00" + bytes(100), "compressed"),
        (bytes(8), "header"),
        (b"<\x01\x00\x00\x00\x00\x00\x00{" + bytes(400), "header"),
    ],
)
def test_what_is_saved_as_safetensors_and_is_none(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    for place in (path, tmp_path):
        with pytest.raises((td.MalformedError, td.LimitError), match=what) as caught:
            td.read_state(place)
        assert caught.value.object == str(path) and "report it" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling/config.json"])
@pytest.mark.parametrize(("data", "what"), [(LFS, "Git LFS"), (b"\n<!doctype html>", "web page")])
def test_a_small_file_that_was_not_fetched_is_refused(
    chain: td.Chain, tmp_path: Path, name: str, data: bytes, what: str
) -> None:
    folder = save(tmp_path / "model", single(BOTH), {name: data})
    with pytest.raises(td.MalformedError, match=what) as caught:
        chain.publish(folder)
    assert caught.value.object == str(folder / name) and chain.versions() == []


def test_a_page_of_a_template_is_a_file(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(save(tmp_path / "model", single(BOTH), {"chat_template.jinja": b"<|im_start|>", "empty.json": b""}))
    assert [entry.name for entry in chain.manifest().files] == ["chat_template.jinja", "empty.json"]
