"""What README.md and reference/README.md say to those who train with TRL and transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import GUIDE, README, ROOT, block
from small_trainer import grpo, llama

import tensordelta as td


@pytest.mark.parametrize("page", [README, GUIDE], ids=["readme", "guide"])
def test_a_callback_is_added(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = grpo(llama(), tmp_path / "training", [], steps=3)
    exec(block(page, "python", "tensordelta.trl"), {"trainer": trainer})
    trainer.train()
    (callback,) = (each for each in trainer.callback_handler.callbacks if hasattr(each, "close"))
    callback.close()
    (chain,) = (td.open(each) for each in tmp_path.glob("run-*"))
    assert chain.at(step=0) == 0 < chain.at(step=3) == chain.newest()


@pytest.mark.slow
def test_the_small_model_to_try_it_with(tmp_path: Path) -> None:
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    variables["PYTHONPATH"] = str(ROOT / "reference")
    install, train, log = block(README, "sh", "train_with_trl.py").splitlines()
    assert install == "pip install '.[cli,trl]'"
    done = subprocess.run(["bash", "-c", train], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chain = td.open(tmp_path / "run-1")
    assert [chain.manifest(version).annotations["step"] for version in chain.versions()] == list("0123456")
    as_module = log.replace("tensordelta", f"{sys.executable} -m tensordelta", 1)
    done = subprocess.run(["bash", "-c", as_module], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and "step=6" in done.stdout, done.stderr
    chain.pull(tmp_path / "model", 0)
    assert {"config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "model").iterdir()}
