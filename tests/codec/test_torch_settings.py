"""Matrix products have full precision while it is needed; then the precision that the caller had set is restored."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from jahp_pl.codec.entropy.latent_coder import LatentCoder
from jahp_pl.codec.torch_settings import PrecisionError, full_precision
from tests.support.circumstances import changed
from tests.support.codec_models import JOINT, codec_of

PRECISIONS = """
import torch
from jahp_pl.codec.torch_settings import full_precision
settings = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]
def state():
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = "mixed"
    return older, [setting.fp32_precision for setting in settings]
SET
before = state()
with full_precision(torch.device("cpu")):
    assert torch.get_float32_matmul_precision() == "highest"
    assert all(precision in ("ieee", "none") for precision in state()[1]), state()
assert state() == before, (before, state())
"""


def check_in_child(code: str) -> None:
    """Run code that must not fail in a separate process, because torch never forgets which interface was used."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch knows only the older way")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize(
    "ask_for_less",
    [
        "pass", "torch.set_float32_matmul_precision('medium')", "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", "torch.backends.fp32_precision = 'tf32'",
    ],
)  # fmt: skip
def test_full_precision_holds_under_every_setting_of_the_caller_and_is_restored(ask_for_less: str) -> None:
    check_in_child(PRECISIONS.replace("SET", ask_for_less))


def test_full_precision_lasts_until_its_last_user_is_done() -> None:
    """One thread ends while another still needs full precision."""
    before = torch.get_float32_matmul_precision()
    with changed(torch.set_float32_matmul_precision, "medium", before):
        first, second = full_precision(torch.device("cpu")), full_precision(torch.device("cpu"))
        with contextlib.ExitStack() as inner, contextlib.ExitStack() as outer:
            outer.enter_context(first)
            inner.enter_context(second)
            outer.close()
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("ask_first", ["pass", "torch.backends.fp32_precision = 'tf32'"])
def test_a_setting_that_was_inherited_stays_inherited(ask_first: str) -> None:
    """A later setting for all backends must reach matrix products just as it would without a codec."""
    check_in_child(
        f"import torch\nfrom jahp_pl.codec.torch_settings import full_precision\n{ask_first}\n"
        "settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)\n"
        "with full_precision(torch.device('cpu')):\n    pass\n"
        "for precision in ('ieee', 'tf32'):\n"
        "    torch.backends.fp32_precision = precision\n"
        "    assert [s.fp32_precision for s in settings] == [precision] * 2\n"
        "torch.backends.mkldnn.matmul.fp32_precision = 'tf32'\n"
        "with full_precision(torch.device('cpu')):\n    pass\n"
        "torch.backends.fp32_precision = 'ieee'\n"
        "assert [s.fp32_precision for s in settings] == ['ieee', 'tf32']\n"
    )


def test_a_change_of_precision_by_another_thread_is_noticed_by_all_and_kept() -> None:
    before = torch.get_float32_matmul_precision()
    with changed(torch.set_float32_matmul_precision, "highest", before):
        first, second = full_precision(torch.device("cpu")), full_precision(torch.device("cpu"))
        first.__enter__()
        thread = threading.Thread(target=torch.set_float32_matmul_precision, args=("medium",))
        thread.start()
        thread.join()
        with second:  # a new user gets full precision again
            assert torch.get_float32_matmul_precision() == "highest"
        with pytest.raises(PrecisionError, match="another thread"):
            first.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "medium"
        torch.set_float32_matmul_precision("highest")
        with pytest.raises(PrecisionError), full_precision(torch.device("cpu")):
            torch.set_float32_matmul_precision("medium")
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_disturbed_call_is_retried_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, calls = codec_of(JOINT), []
    data = codec.compress(torch.zeros(3, 40, 50, dtype=torch.uint8))
    whole = LatentCoder.read
    before = torch.get_float32_matmul_precision()

    def disturbed(coder: LatentCoder, tasks: Any, check: Any) -> Any:
        calls.append(len(calls))
        with full_precision(coder.device):
            if len(calls) < limit:
                torch.set_float32_matmul_precision("medium")
            return whole(coder, tasks, check)

    monkeypatch.setattr(LatentCoder, "read", disturbed)
    with changed(torch.set_float32_matmul_precision, "highest", before):
        limit = 3
        assert codec.decompress(data).shape == (3, 40, 50)
        assert len(calls) == 3
        limit = 99
        with pytest.raises(PrecisionError):
            codec.decompress(data)
        assert len(calls) == 6
