"""Exports on the Hugging Face Hub: the only door to huggingface_hub, which `pip install 'jahp_pl[hub]'` brings.

    push("models/mine", "user/mine")              an export, its model card included, as a repository of models
    jahp_pl.load_codec("hf://user/mine")          and from there, by the Hub's own cache; @REVISION may follow

What comes from the Hub is checked as every export is, before it is used.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jahp_pl.exports.stated import CARD, CONFIG, WEIGHTS, ExportError, is_export

PREFIX = "hf://"
FILES = [WEIGHTS, CONFIG, CARD]


def push(folder: str | Path, repo: str, private: bool = False) -> str:
    """Send an export to the Hub; the repository is made if it is not there.

    Args:
        folder: that `jahp export` wrote.
        repo: USER/NAME.
        private: make it visible to its owner only; a repository that is there stays as it is.

    Returns:
        The address of its page.

    Raises:
        ExportError: no export there, or the Hub refuses; the message says why.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise ExportError(f"{folder}: no export; make one with `jahp export`")
    _require()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(library_name="jahp_pl")
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=FILES, commit_message="Export of jahp_pl"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(repo, error) from None
    return str(url)


def download(name: str) -> Path:
    """The folder of an export from the Hub; what is in the cache already is not fetched again.

    Args:
        name: hf://USER/NAME, perhaps followed by @ and a branch, a tag or a commit.

    Raises:
        ExportError: no such repository, or no network; the message says why.
    """
    _require()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repo, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=FILES, library_name="jahp_pl")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(name, error) from None
    return Path(str(folder))


def _refused(name: str, error: Exception) -> ExportError:
    return ExportError(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")


def _require() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ExportError("the Hub needs one more package; install it with: pip install 'jahp_pl[hub]'")
