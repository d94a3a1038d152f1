"""The Hugging Face hub: weights by an address, `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`; folders pushed to it.

Of a repository one file is read, `model.safetensors`, which holds no code. This module alone knows `huggingface_hub`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import des4
from des4.types import ConfigError, RunError, WeightsError

WEIGHTS = "model.safetensors"
"""The file of a repository that holds a network."""
PATIENCE = 10.0
"""Seconds for the hub to answer, before a copy in the cache is used."""

_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^@]+))?/?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOG_IN = "log in with: hf auth login, or set HF_TOKEN"


@dataclass(frozen=True)
class Address:
    """A repository on the hub, `owner/name`. revision: branch, tag or commit; None: the main branch."""

    repo: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """The repository's name, without its owner."""
        return self.repo.partition("/")[2]

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_address(source: str | Path) -> bool:
    """Whether a source of weights lies on the hub. A `Path` of an address has lost one of its slashes."""
    return str(source).startswith("hf:/")


def address_of(source: str | Path) -> Address:
    """Read an address. Raises ConfigError."""
    found = _ADDRESS.fullmatch(str(source))
    if found is None:
        raise ConfigError(f"{source}: an address on the hub is hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return Address(found["repo"], found["revision"])


def fetch(source: str | Path) -> Path:
    """Return the weights file of a repository, in the cache of `huggingface_hub`; what is there already is not loaded.

    If the hub cannot be reached, a copy in the cache is used, and a warning says so. Raises ConfigError for what is no
    address or without the extra `hub`; WeightsError.
    """
    address = address_of(source)
    hub = _library(address)
    with _plain_errors(address, "no copy is in the cache"):
        try:
            if not _COMMIT.fullmatch(address.revision or ""):  # a commit stays what it is
                hub.HfApi().model_info(address.repo, revision=address.revision, timeout=PATIENCE)
            return Path(
                hub.hf_hub_download(
                    address.repo, WEIGHTS, revision=address.revision,
                    library_name="des4", library_version=des4.__version__,
                )
            )  # fmt: skip
        except _unreachable() as error:
            if not _is_passing(error):
                raise
            copy = hub.try_to_load_from_cache(address.repo, WEIGHTS, revision=address.revision)
            if not isinstance(copy, str):  # None, or a mark that the file was not there
                raise
            warnings.warn(
                f"{address}: the hub cannot be reached ({_reason(error)}); the copy of commit "
                f"{Path(copy).parent.name[:12]} in the cache is used",
                stacklevel=2,
            )
            return Path(copy)


def push(
    folder: Path, target: str | Path, message: str, *, private: bool, overwrite: bool, stale: Sequence[str] = ()
) -> tuple[Address, bool]:
    """Make all files of a folder one commit of a repository; return its address, and whether it is private.

    A repository that is not there is made, `private` or not; one that is there stays as private as it is. overwrite:
    push to one that holds files; its history keeps them. stale: files that the commit takes off, if they are there and
    not in the folder. Raises ConfigError without the extra or a token, RunError.
    """
    address = address_of(target)
    if address.revision:
        raise ConfigError(f"{address}: a push goes to the main branch; leave @{address.revision} out")
    hub = _library(address)
    if hub.get_token() is None:
        raise ConfigError(f"{address}: pushing needs a token that may write; {_LOG_IN}")
    api = hub.HfApi(library_name="des4", library_version=des4.__version__)
    with _plain_errors(address, "nothing was pushed"):
        api.create_repo(address.repo, private=private, exist_ok=True)
        info = api.model_info(address.repo)
        held = sorted({file.rfilename for file in info.siblings or ()} - {".gitattributes"})
        if held and not overwrite:
            raise RunError(f"{address} holds {', '.join(held[:4])}{' …' if len(held) > 4 else ''}; push over it with "
                           "--overwrite (its history keeps them), or choose another name")  # fmt: skip
        api.upload_folder(repo_id=address.repo, folder_path=folder, commit_message=message, delete_patterns=list(stale))
    return address, bool(info.private)


def _library(address: Address) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(f'{address}: needs huggingface_hub; pip install "des4[hub]"') from None
    return huggingface_hub


def _unreachable() -> tuple[type[BaseException], ...]:
    """Return what the library raises where the hub does not answer: its own, and of the HTTP library that it uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)


def _is_passing(error: BaseException) -> bool:
    """Whether the hub may answer at another time: it cannot be reached, is overloaded or has failed."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return False
    status = _status(error)
    return not isinstance(error, HfHubHTTPError) or status is None or status == 429 or status >= 500


@contextmanager
def _plain_errors(address: Address, otherwise: str) -> Iterator[None]:
    """Turn what the library raises into one line that says what to do. otherwise: what follows from no answer."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise WeightsError(
            f"{address}: asks its readers to agree to terms; do so on its page, then {_LOG_IN}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"{address}: no such repository, or a private one that your token does not open; {_LOG_IN}"
        ) from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{address}: the repository has no revision {address.revision}") from None
    except errors.HFValidationError as error:
        raise ConfigError(f"{address}: no repository can be called so ({error})") from None
    except _unreachable() as error:
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            raise WeightsError(
                f"{address}: holds no {WEIGHTS}, as des4 push writes it; des4 reads no other file from the hub"
            ) from None
        if (status := _status(error)) in (401, 403):
            raise RunError(f"{address}: the hub refuses your token ({status}); take one that may do this: {_LOG_IN}") \
                from None  # fmt: skip
        raise RunError(f"{address}: the hub cannot be reached ({_reason(error)}), and {otherwise}; try again") from None


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if (status := _status(error)) is not None:
        return f"it answers {status}"
    return str(error).partition("\n")[0] or type(error).__name__
