"""Classifies errors raised while a model loads: final, worth a retry, or the fault of this node."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from caslie_ray.engines._checkpoints import CheckpointError
from caslie_ray.errors import EngineError

__all__ = ["Kind", "LoadError", "LoadFailure", "at_fault", "causes", "classify"]

Kind = Literal["final", "retry", "elsewhere"]

_REASON_CHARS = 500
_TOO_MANY_REQUESTS = 429
_PASSING_STATUS = (408, 425, _TOO_MANY_REQUESTS)

_TOKEN = "set HF_TOKEN on every node to a token that may read the repository"
_LICENCE = "accept its licence on its page at the hub, and set HF_TOKEN on every node to a token of that account"
_NAME = "check `checkpoint`; if the repository is private or gated, set HF_TOKEN on every node"
_REVISION = "set `revision` to a branch, tag or commit that the repository has"
_HUB_LATER = "run the job again later; HF_TOKEN raises the hub's rate limit"
_MEMORY = (
    "give the replica more GPU memory (resources.gpus), or lower batch_tokens, batch_size or context (in"
    " schedule=staged and in predict: alone.gpus, alone.batch_tokens, alone.batch_size)"
)
_SAFETENSORS = "choose a checkpoint with safetensors weights, or convert it; pickled weights are never read"
_TEMPLATE = "use an instruction-tuned checkpoint, or put its chat_template.jinja next to the weights"
_ARCHITECTURE = "choose a checkpoint of a supported architecture"
_DRIVER = "check the GPU and its driver on this node (nvidia-smi)"
_DISK = "free disk space on this node, or point HF_HOME at a larger disk"
_WRITABLE = "make the hub's cache folder writable on this node, or point HF_HOME at a folder that is"
_PACKAGES = "install the same packages on every node"
_OFFLINE = "set HF_HUB_OFFLINE=0, or download the checkpoint on this node first (hf download)"


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model could not be loaded, and what to do about it.

    Attributes:
        kind: `final` (fails everywhere), `retry` (may succeed on the same node later) or `elsewhere` (this node is at
            fault; another may work).
        reason: one line.
        mend: what the user can change, in one line; may be empty.
    """

    kind: Kind
    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.mend})" if self.mend and self.mend not in self.reason else self.reason


class LoadError(EngineError):
    """A model cannot be loaded. Keeps its `LoadFailure` when pickled."""

    def __init__(self, failure: LoadFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure

    def __reduce__(self) -> tuple[type[LoadError], tuple[LoadFailure]]:
        return type(self), (self.failure,)


class _Classification(NamedTuple):
    kind: Kind
    mend: str


def classify(error: BaseException) -> LoadFailure:
    """Classify an error that was raised while a model was loaded.

    Exception types along the chain of causes decide first, then their text, because vLLM raises the errors of its
    subprocesses as text. An `EngineError` without another cause is about the checkpoint itself, so final; any other
    unknown error is worth a retry.
    """
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, LoadError):
            return link.failure
    about_checkpoint = isinstance(error, CheckpointError) or isinstance(chain[-1], EngineError)
    classification = (
        next(filter(None, map(_by_type, chain)), None)
        or next(filter(None, (_by_text(str(link)) for link in chain)), None)
        or _Classification("final" if about_checkpoint else "retry", "")
    )
    return LoadFailure(classification.kind, _one_line(error), classification.mend)


def at_fault(error: BaseException) -> bool:
    """Return whether a loading error is the fault of the node or its GPU."""
    return classify(error).kind == "elsewhere"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _by_type(error: BaseException) -> _Classification | None:
    names = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__}
    if "huggingface_hub.HfHubHTTPError" in names:
        return _of_response(error)
    for name, classification in _TYPES.items():
        if name in names:
            return classification
    if isinstance(error, MemoryError):
        return _Classification("retry", "give the replica more main memory (resources.memory_gib)")
    if isinstance(error, OSError):
        return _of_errno(error)
    return None


def _of_response(error: BaseException) -> _Classification:
    """Classify an HTTP error of the hub."""
    names = {base.__name__ for base in type(error).__mro__}
    status = int(getattr(getattr(error, "response", None), "status_code", 0))
    if "GatedRepoError" in names:
        return _Classification("final", _LICENCE)
    if "RevisionNotFoundError" in names:
        return _Classification("final", _REVISION)
    if "RepositoryNotFoundError" in names:
        return _Classification("final", _NAME)
    if status in (401, 403):
        return _Classification("final", _TOKEN)
    if status in _PASSING_STATUS or status >= 500:
        return _Classification("retry", _HUB_LATER)
    return _Classification("final", _NAME)


def _of_errno(error: OSError) -> _Classification | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _Classification("elsewhere", _DISK)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _Classification("elsewhere", _WRITABLE)
    if isinstance(error, ConnectionError | TimeoutError):
        return _Classification("retry", _HUB_LATER)
    return None


# By package and class, so that neither torch nor the hub's client is imported to classify an error.
_TYPES = {
    "huggingface_hub.OfflineModeIsEnabled": _Classification("elsewhere", _OFFLINE),
    "torch.OutOfMemoryError": _Classification("retry", _MEMORY),
    "httpx.TransportError": _Classification("retry", _HUB_LATER),
    "httpx2.TransportError": _Classification("retry", _HUB_LATER),
}

_TEXTS: tuple[tuple[re.Pattern[str], _Classification], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), classification)
    for pattern, classification in (
        # The node. Before memory: the message of a failed driver call may mention memory too.
        (r"no space left on device|disk quota exceeded", _Classification("elsewhere", _DISK)),
        (r"read-only file system", _Classification("elsewhere", _WRITABLE)),
        (
            r"no cuda gpus are available|found no nvidia driver|cuda driver|cuda unknown error|cudaGetDeviceCount"
            r"|cuda error: (?!out of memory)|nvml|failed to infer device type|CUDA GPUs here: \d"
            r"|forward compatibility was attempted|libcuda",
            _Classification("elsewhere", _DRIVER),
        ),
        (r"offline mode is enabled|outgoing traffic has been disabled", _Classification("elsewhere", _OFFLINE)),
        (
            r"no module named|cannot import name",
            _Classification("elsewhere", "install the same packages on every node"),
        ),
        # Memory used by another process, and memory that no card of this kind has (vLLM).
        (r"on startup is less than desired", _Classification("retry", _MEMORY)),
        (
            r"larger than the available KV cache memory|no available memory for the cache blocks"
            r"|larger than the maximum number of tokens that can be stored in KV cache",
            _Classification("final", _MEMORY),
        ),
        (r"out of memory|not enough memory|can't allocate memory|_alloc_failed", _Classification("retry", _MEMORY)),
        # The hub, as text from another process.
        (r"gated repo|GatedRepoError", _Classification("final", _LICENCE)),
        (r"RevisionNotFound|revision not found|is not a valid git identifier", _Classification("final", _REVISION)),
        (r"401 client error|invalid credentials", _Classification("final", _TOKEN)),
        (r"RepositoryNotFound|repository not found|is not a valid model identifier", _Classification("final", _NAME)),
        (
            r"429 too many requests|429 client error|\b50[0234]\b.*server error|server error.*\b50[0234]\b"
            r"|timed? ?out|connection (?:refused|reset|aborted|error)|name resolution|couldn't connect to",
            _Classification("retry", _HUB_LATER),
        ),
        # The checkpoint.
        (r"no chat template", _Classification("final", _TEMPLATE)),
        (r"no file named .*safetensors|no safetensors", _Classification("final", _SAFETENSORS)),
        (
            r"does not recognize this architecture|architectures .* are not supported|of the family .* cannot run"
            r"|cannot run on vLLM",
            _Classification("final", _ARCHITECTURE),
        ),
        (
            r"expected target modules in|does not fit .*(?:it lacks|which has no)",
            _Classification("final", "train the adapter again for this checkpoint and engine"),
        ),
    )
)


def _by_text(text: str) -> _Classification | None:
    flat = " ".join(text.split())
    return next((classification for pattern, classification in _TEXTS if pattern.search(flat)), None)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, EngineError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 1] + "…"
