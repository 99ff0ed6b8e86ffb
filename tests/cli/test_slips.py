"""Everyday slips: each is answered by one sentence and one advice, on the command line and in Python."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tensordelta as td
from tensordelta.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of three versions, a folder that holds the newest, and what is taken for a checkpoint or a chain."""
    root = tmp_path_factory.mktemp("slips")
    chain = td.open(root / "run", create=True, threads=1)
    for step in range(3):
        state = td.State.from_arrays({"w": np.arange(2000, dtype=np.float32) + (np.arange(2000) < step)})
        state.save(root / f"{step}.safetensors")
        chain.publish(state)
    chain.pull(root / "out")
    data = (root / "0.safetensors").read_bytes()
    files: dict[str, str | bytes] = {
        "other/notes.txt": "mine",
        "model/model.safetensors": data,
        "model/config.json": "{}",
        "onlyconfig/pytorch_model.bin": b"x",
        "README.md": "# My model\n\nSome words.\n",
        "page.safetensors": "<!DOCTYPE html><html>sign in</html>",
        "lfs.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
        "answer.safetensors": "Entry not found: no such file here",
        "short.safetensors": data[:-100],
        "stub.safetensors": data[:5],
        "void.safetensors": b"",
        "raw.bin": pickle.dumps({"w": [1.0] * 50}),
        "q.gguf": b"GGUF\x03\0\0\0" + bytes(100),
        "model-00001-of-00002.safetensors": data,
        "bad/chain.json": b'{"tensordelta":"1.0","chain":"' + 60_000 * b"x" + b'"}',
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with zipfile.ZipFile(root / "torch.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    np.save(root / "w.npy", np.arange(5))
    (root / "empty").mkdir()
    (root / "dir.safetensors").mkdir()
    (root / "runs").mkdir()
    shutil.copytree(root / "run", root / "runs" / "first")
    (root / "link.safetensors").symlink_to("gone.safetensors")
    return root


#: A command, and what it says after "error: " or "Error: ".
SLIPS = {
    "log nowhere": "there is no chain at nowhere. Check the address",
    "log empty": "there is no chain at empty, which is an empty folder. Check",
    "log other": "there is no chain at other, which has other contents. Check",
    "log 0.safetensors": "there is no chain at 0.safetensors, which is a file. Name the folder of a chain",
    "log model": "there is no chain at model, which is a checkpoint. Name a chain",
    "log out": "there is no chain at out, which is a folder that a pull made. Name the chain",
    "log runs": "there is no chain at runs, but there are chains in it. Name one of them: runs/first.",
    "log run@2": "run@2 names a version, and this wants a chain: write run,",
    "publish run@2 0.safetensors": "run@2 names a version",
    "show run 99": "there is no version 99 in run. Choose one that `log` lists",
    "show run seven": "'seven' is no version: versions are numbers",
    "show run -1": "-1 is no version: CHAIN@-1 counts from the newest one",
    "pull run out --to newest": "'newest' is no version",
    "pull run new --to 99": "there is no version 99 in run. ",
    "plan run --to 9": "there is no version 9 in run. Choose",
    "pin run 99 best": "there is no version 99 in run. Choose",
    "unpin run nothing": "there is no pin nothing. `log --pins` lists",
    "diff run@99 run@0": "there is no version 99 in run. ",
    "diff run@seven run@0": "run@seven: a version is a number",
    "diff run@-9 run@0": "the chain has 3 versions, so there is none at -9. ",
    "diff nothing@0 run@0": "there is no chain at nothing. ",
    "diff run README.md": "README.md is a text file, not a checkpoint. Name a safetensors file",
    "ls nowhere": "nowhere: no such file. Name a safetensors file",
    "ls empty": "empty is empty: it holds no safetensors file. Name",
    "publish new nowhere.safetensors": "nowhere.safetensors: no such file. Name a safetensors file",
    "publish new README.md": "README.md is a text file, not a checkpoint. Name",
    "publish new model/config.json": "model/config.json is a text file, not a checkpoint. Name",
    "publish new page.safetensors": "page.safetensors is a web page, not the file. Download the file itself",
    "publish new answer.safetensors": "answer.safetensors is a text, not the file. Download the file again",
    "publish new lfs.safetensors": "lfs.safetensors is a pointer of Git LFS, not the file. Fetch the file",
    "publish new short.safetensors": "short.safetensors is cut off: ",
    "publish new stub.safetensors": "stub.safetensors: shorter than the eight bytes",
    "publish new void.safetensors": "void.safetensors is empty. Download it again",
    "publish new raw.bin": "raw.bin is a pickle. Save the weights as safetensors",
    "publish new torch.pt": "torch.pt is a file of torch.save, or another archive. Save the weights",
    "publish new q.gguf": "q.gguf is a GGUF file. Name the safetensors file",
    "publish new w.npy": "w.npy is an array of NumPy. Save the weights",
    "publish new onlyconfig": "onlyconfig holds no safetensors file. Save the weights of pytorch_model.bin",
    "publish new model-00001-of-00002.safetensors": (
        "model-00001-of-00002.safetensors is one of 2 files of a checkpoint. Name its folder"
    ),
    "publish new dir.safetensors": "dir.safetensors is empty: it holds no safetensors file. Name",
    "publish new link.safetensors": "link.safetensors is a link that leads nowhere. Download the file again",
    "publish new run": "run is the folder of a chain, not a checkpoint. Name a checkpoint",
    "publish 0.safetensors run": "the chain comes first: write `publish run 0.safetensors`.",
    "publish 0.safetensors 1.safetensors": "0.safetensors is a file, and a chain is a folder. Name an empty folder",
    "publish other 0.safetensors": "other has contents, but no chain. Name an empty folder",
    "publish hf:/buckets/a/b 0.safetensors": "'hf:/buckets/a/b' is no address: write hf://buckets/a/b,",
    "publish s3:/bucket/run 0.safetensors": "'s3:/bucket/run' is no address: write s3://bucket/run,",
    "publish s3:bucket 0.safetensors": "'s3:bucket' is no address: write s3://bucket,",
    "publish hf://OWNER/NAME 0.safetensors": "'hf://OWNER/NAME' is a model, and chains live in buckets: write",
    "publish hf://buckets/OWNER 0.safetensors": "'hf://buckets/OWNER' is no bucket: write hf://buckets/OWNER/NAME",
    "publish ftp://host/run 0.safetensors": "'ftp://host/run': chains live in folders,",
    "publish run 0.safetensors --step x": "'x' is not a valid whole number.",
    "publish run 0.safetensors --annotation step": "'step' is not KEY=VALUE.",
    "publish run 0.safetensors --key nowhere.key": "nowhere.key: No such file or directory.",
    "pull run README.md": "Directory 'README.md' is a file.",
    "pull run other": "other has contents, but no pull made them. Name an empty folder",
    "pull out run": "there is no chain at out, which is a folder that a pull made. ",
    "pull run 0.safetensors/x": "0.safetensors/x: Not a directory. A part of this path is a file",
    "verify 0.safetensors": "there is no chain at 0.safetensors, which is a file. ",
    "verify model": "there is no chain at model, which is a checkpoint. ",
    "copy run other": "other has contents, but no chain. Name",
    "copy run run": "SRC and DST are the same place.",
    "gc run": "Missing option '--keep-last'.",
    "sign run --key README.md": "README.md: no secret key",
    "pul run out": "No such command 'pul'.",
    "log bad": "chain.json: ",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_answered_in_a_sentence(slip: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    done = CliRunner().invoke(main, slip.split())
    said = done.stderr.splitlines()[-1]
    assert done.exit_code in (1, 2) and done.stdout == "" and not re.search(r"TD-[A-Z]{3}|Traceback", done.stderr)
    assert SLIPS[slip] in said and said.startswith(("error: ", "Error: "))
    assert len(said) < 600, "one sentence and one advice"
    assert done.exit_code == 2 or done.stderr.count("\n") == 1
    assert sorted(place.iterdir()) == before

    done = CliRunner().invoke(main, [*slip.split(), "--json"])
    found = json.loads(done.stdout)
    assert found["ok"] is False and (found["rule"] is None or found["rule"] in found["message"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(place / "0.safetensors", "locked.safetensors")
    Path("locked.safetensors").chmod(0)
    done = CliRunner().invoke(main, ["publish", "new", "locked.safetensors"])
    assert done.stderr.startswith("error: locked.safetensors: Permission denied. Look who may read")


def test_an_extra_that_is_not_installed_is_named(place: Path) -> None:
    for absent, command, extra in (
        ("obstore", ["log", "s3://bucket/run"], "cloud"),
        ("cryptography", ["keygen", "new.key"], "sign"),
    ):
        code = f"import sys; sys.modules[{absent!r}] = None; from tensordelta.cli import main; main({command})"
        done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and f"tensordelta[{extra}]" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_long_string_of_a_manifest_is_not_printed_whole(place: Path, tmp_path: Path) -> None:
    """Whoever wrote it decides how long it is."""
    shutil.copytree(place / "run", tmp_path / "run")
    manifest = tmp_path / "run/manifests/000000000002.json"
    for key in ("fingerprint", "path", "created", "chain", "layout"):
        text = re.sub(rf'"{key}":"', rf'"{key}":"{100_000 * "9"}', manifest.read_text(), count=1)
        manifest.write_text(text)
        with pytest.raises(td.TensorDeltaError) as caught:
            td.open(tmp_path / "run").load(2)
        assert len(str(caught.value)) < 1500 and len(caught.value.sentence) < 1500
        shutil.copy(place / "run/manifests/000000000002.json", manifest)
    fault = td.MalformedError("a name " + 10_000 * "x" + " that ends", object="y" * 5000, rule="TD-OBJ-001")
    assert len(fault.reason) < 700 and len(fault.object) < 700
    assert (
        fault.reason.startswith("a name x")
        and fault.reason.endswith("x that ends")
        and "10,017 letters" in fault.reason
    )


def test_slips_in_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    chain = td.open("run")
    with pytest.raises(td.MissingError, match="there is no chain at model, which is a checkpoint"):
        td.open("model")
    with pytest.raises(td.MissingError, match="there is no version 99 in run"):
        chain.load(99)
    with pytest.raises(td.TensorDeltaError, match=r"raw\.bin: is a pickle") as caught:
        td.read_state("raw.bin")
    assert caught.value.sentence.startswith("raw.bin is a pickle. Save the weights as safetensors")
    with pytest.raises(ValueError, match="write hf://buckets/a/b"):
        td.open("hf:/buckets/a/b")
    with pytest.raises(TypeError, match="a version is an int"):
        chain.load("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a version is an int"):
        chain["w"]  # type: ignore[index]


def test_a_folder_named_like_an_address_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    Path("s3:/run").mkdir()
    with pytest.raises(td.MissingError, match="there is no chain at s3:/run"):
        td.open("s3:/run")


def test_a_notebook_shows_the_users_lines_alone(place: Path) -> None:
    """IPython asks an error how its traceback looks."""
    chain = td.open(place / "run")
    with pytest.raises(td.MissingError) as caught:
        chain.load(99)
    lines = caught.value._render_traceback_()
    assert lines[-1] == f"MissingError: {caught.value.sentence}"
    assert re.fullmatch(r"  .*test_slips\.py, line \d+: chain\.load\(99\)", lines[0]) and len(lines) == 2
    assert "reader.py" not in "".join(lines)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again._render_traceback_() == [lines[-1]]
