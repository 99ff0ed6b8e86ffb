"""Files of models on the Hugging Face Hub, by way of its client and in the client's own cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import MissingError, StoreError
from ..progress import Phase, phase
from ..threads import ordered_map
from .hub import PREFIX, is_client_error, quiet

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

T = TypeVar("T")

#: Files that are downloaded at once.
_PARALLEL = 4
_ADDRESS = re.compile(r"hf://(?P<model>[^/@]+/[^/@]+)(@(?P<revision>[^/@]+))?/?")
_CHECK = "Check the name and the revision; for a private or gated model log in (`hf auth login`)."


class Model(NamedTuple):
    """A model on the Hub: ORG/NAME, and a branch, tag or commit of it; None for its main branch."""

    name: str
    revision: str | None


def is_model(address: str) -> bool:
    """True for an address on the Hub that is none of a bucket."""
    return address.startswith("hf://") and not address.startswith(PREFIX)


def parse_model(address: str) -> Model:
    """Parse `hf://ORG/MODEL` or `hf://ORG/MODEL@REVISION`.

    Raises:
        ValueError: it is none.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r} is no model: write hf://ORG/MODEL or hf://ORG/MODEL@REVISION")
    return Model(match["model"], match["revision"])


def fetch_model(address: str, choose: Callable[[Mapping[str, int]], Collection[str]]) -> Path:
    """Bring files of a model into the client's cache, where they are not there already.

    Without a network, or with HF_HUB_OFFLINE, what the cache has of the model is taken as it is.

    Args:
        address: `hf://ORG/MODEL` or `hf://ORG/MODEL@REVISION`.
        choose: says which files are needed, given the sizes of all by name.

    Returns:
        The folder of the revision in the cache, with these files at least.

    Raises:
        MissingError: no such model or revision, or none that this user may see.
        StoreError: the Hub did not answer, and the cache has nothing; or it refused.
        ValueError: no such address.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    model = parse_model(address)
    api = HfApi(library_name="tensordelta")
    try:
        info = _try(address, lambda: api.model_info(model.name, revision=model.revision, files_metadata=True))
    except StoreError:
        try:
            return Path(snapshot_download(model.name, revision=model.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            pass
        raise
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    names = sorted(choose(sizes))
    with phase("downloading", sum(sizes[name] for name in names)) as work:
        bring = partial(_bring, address, model, info, work=work)
        paths = list(ordered_map(bring, names, threads=_PARALLEL))
    if not paths:
        raise MissingError("holds no safetensors file", object=address, rule="TD-PCK-014", advice=_CHECK)
    snapshot = paths[0].parents[len(Path(names[0]).parts) - 1]
    _note(snapshot, model.revision or "main")
    return snapshot


def _note(snapshot: Path, revision: str) -> None:
    """Note in the cache which commit a branch or tag is, as the client does, so that it is found without a network."""
    if revision != snapshot.name:
        refs = snapshot.parents[1] / "refs"
        with suppress(OSError):
            refs.mkdir(exist_ok=True)
            (refs / revision).write_text(snapshot.name)


def model_tensors(address: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor of a model, by name; only the headers of its files are read.

    Raises:
        MissingError: no such model or revision, or none that this user may see; or it holds no safetensors file.
        StoreError: the Hub did not answer, or refused.
        ValueError: no such address.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError

    model = parse_model(address)
    api = HfApi(library_name="tensordelta")

    def ask() -> dict[str, tuple[str, tuple[int, ...]]]:
        with quiet():
            found = api.get_safetensors_metadata(model.name, revision=model.revision)
        tensors = (each for file in found.files_metadata.values() for each in file.tensors.items())
        return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors}

    try:
        return _try(address, ask)
    except NotASafetensorsRepoError:  # the client's answer where there is no such model, too
        _try(address, lambda: api.model_info(model.name, revision=model.revision))
        raise MissingError("holds no safetensors file", object=address, rule="TD-PCK-014", advice=_CHECK) from None


def _bring(address: str, model: Model, info: ModelInfo, name: str, *, work: Phase) -> Path:
    """One file, at the commit at which all were listed."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import tqdm

    class Counted(tqdm):
        """The client's own progress, which goes to the phase."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            work.add(n or 0)

    def download() -> Path:
        with quiet():
            return Path(hf_hub_download(model.name, name, revision=info.sha, tqdm_class=Counted))

    return _try(address, download, of=name)


def _try(address: str, ask: Callable[[], T], of: str = "the model") -> T:
    """Ask the Hub.

    Raises:
        MissingError: there is no such model, or no such revision of it.
        StoreError: it did not answer, or refused.
        ValueError: no address that a model can have.
    """
    from huggingface_hub.errors import (
        HFValidationError,
        NotASafetensorsRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return ask()
    except RevisionNotFoundError:
        raise MissingError("has no such revision", object=address, rule="TD-PCK-014", advice=_CHECK) from None
    except RepositoryNotFoundError:
        reason = "is no model that this user may see"
        raise MissingError(reason, object=address, rule="TD-PCK-014", advice=_CHECK) from None
    except NotASafetensorsRepoError:
        raise
    except HFValidationError as error:
        raise ValueError(f"{address!r} is no model: {' '.join(str(error).split())}") from None
    except Exception as error:
        if not is_client_error(error):
            raise
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        advice = "Check the network, HF_ENDPOINT and your token, or name a folder of this machine."
        raise StoreError(address, "read", of, text, advice) from None


def cached_model(folder: Path) -> Path:
    """The newest revision in a model's folder of the client's cache; any other folder as it is.

    Raises:
        MissingError: it has several revisions, and none is the main branch.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith("models--") or not snapshots.is_dir():
        return folder
    main = folder / "refs" / "main"
    if main.is_file() and (found := snapshots / main.read_text().strip()).is_dir():
        return found
    revisions = sorted(snapshots.iterdir())
    if len(revisions) == 1:
        return revisions[0]
    reason = f"holds {len(revisions)} revisions, and none is its main branch"
    advice = f"Name one of them: {', '.join(map(str, revisions[:3]))}." if revisions else "Download the model again."
    raise MissingError(reason, object=str(folder), rule="TD-PCK-014", advice=advice)
