"""Latents under the exact parameters: wavefronts agree with a plain raster scan, and any latents can be coded."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy import symbol_coder
from jahp_pl.codec.entropy.latent_coder import LatentCoder, TorchLatentBatch
from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange
from jahp_pl.codec.entropy.wavefront import RASTER_STEP
from jahp_pl.codec.entropy.window_tables import WIDTHS, Windows
from jahp_pl.codec.torch_settings import full_precision
from jahp_pl.config import DensityName, ModelConfig
from jahp_pl.entropy_model import ConditionalDensity
from jahp_pl.hyperprior import HyperSynthesis
from tests.support.codec_models import FAMILIES, JOINT, MIXTURE, Variant, codec_of, load_golden

WITH_CONTEXT = [JOINT, MIXTURE, Variant("context", "laplace", 3), Variant("joint", "logistic")]
OF_EACH_KIND = [*WITH_CONTEXT, Variant("mean_scale_hyperprior"), Variant("scale_hyperprior", "logistic", 3)]
SIZES = [(1, 1), (1, 9), (9, 1), (3, 2), (6, 11)]


def coder_of(variant: Variant) -> LatentCoder:
    coder = codec_of(variant).latents
    assert coder is not None
    return coder


def some_latents(variant: Variant, height: int, width: int, largest: int = 30) -> tuple[Tensor, Tensor | None]:
    y_hat = torch.randint(-largest, largest + 1, (12, height, width), dtype=torch.int32)
    z_hat = torch.randint(-9, 10, (8, -(-height // 4), -(-width // 4)), dtype=torch.int32)
    return y_hat, None if variant.entropy_model == "context" else z_hat


def written(coder: LatentCoder, y_hat: Tensor, z_hat: Tensor | None) -> bytes:
    writer = Writer()
    coder.write(writer, y_hat, z_hat)
    return writer.payload()


def task_of(payload: bytes, y_hat: Tensor, z_hat: Tensor | None) -> DecodeTask[Tensor]:
    _, height, width = y_hat.shape
    return DecodeTask(Reader(payload), height, width, z_hat, LatentRange(int(y_hat.min()), int(y_hat.max())))


# --- the order does not matter ----------------------------------------------------------------------------------------


def raster_scan(coder: LatentCoder, y_hat: Tensor, z_hat: Tensor | None) -> Tensor:
    """Compute raw parameters (positions, outputs) position by position in raster order, as an oracle.

    Positions that are not decoded yet hold nonsense, and the taps of the kernel are looked up one by one.
    """
    assert coder.context is not None
    num_latents, height, width = y_hat.shape
    psi = None
    if coder.h_s is not None and z_hat is not None:
        psi = torch.cat([rows for _, rows in coder.h_s.strips(z_hat, height, width)])
    known, rows = torch.full((height, width, num_latents), 99.0), []
    for position in range(height * width):
        row, column = divmod(position, width)
        seen = []
        for i, j in ((row + di, column + dj) for di in (-2, -1, 0) for dj in range(-2, 3) if di < 0 or dj < 0):
            seen.append(known[i, j] if 0 <= i < height and 0 <= j < width else torch.zeros(num_latents))
        start = None if psi is None else coder.context.precompute(psi[position : position + 1])
        rows.append(coder.context.raw([torch.cat(seen)[None]], start))
        known[row, column] = y_hat[:, row, column]
    return torch.cat(rows)


@pytest.mark.parametrize("variant", WITH_CONTEXT, ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_full_frame_wavefront_and_raster_scan_give_equal_parameters(variant: Variant, height: int, width: int) -> None:
    coder = coder_of(variant)
    y_hat, z_hat = some_latents(variant, height, width)
    latent_range = LatentRange(-30, 30)
    at_once, growing = (TorchLatentBatch(coder, [(height, width)], [z_hat], latent_range) for _ in range(2))
    ranks = at_once.order.ranks[0]
    symbols = torch.empty(height * width, 12, dtype=torch.int32)
    symbols[ranks] = y_hat.flatten(1).T
    at_once.insert(0, symbols.numpy())
    growing.insert(0, np.full_like(symbols, -22))
    with full_precision(coder.device):
        full = at_once.raw(0, height * width)
        parts = []
        for (step,) in growing.order.steps:
            parts.append(growing.raw(step.start, step.stop))
            assert np.array_equal(growing.parameters(step.start, step.stop), parts[-1]), "as the decoder computes them"
            growing.insert(step.start, symbols[step.start : step.stop].numpy())
        assert torch.equal(torch.cat(parts), full)
        assert torch.equal(raster_scan(coder, y_hat, z_hat), full[ranks])
    assert torch.equal(growing.y[0, 1:].int()[ranks].T.reshape(y_hat.shape), y_hat)


@pytest.mark.parametrize("variant", OF_EACH_KIND, ids=str)
def test_every_chunking_round_trips(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = coder_of(variant)
    for height, width in [(1, 1), (4, 7), (11, 5)]:
        y_hat, z_hat = some_latents(variant, height, width)
        payloads = set()
        for chunk, cells in [(4096, 2**24), (5, 2**24), (4096, 1), (1, 100)]:
            monkeypatch.setattr(symbol_coder, "ENCODED_POSITIONS", chunk)
            monkeypatch.setattr(symbol_coder, "MAX_TABLE_ENTRIES", cells)
            payloads.add(written(coder, y_hat, z_hat))
            task = task_of(min(payloads), y_hat, z_hat)
            assert torch.equal(coder.read([task])[0], y_hat)
            task.reader.finish()
        assert len(payloads) == 1, "how much is computed at a time does not change the file"


def test_several_blocks_of_positions_without_context_round_trip() -> None:
    variant = Variant("mean_scale_hyperprior")
    y_hat, z_hat = some_latents(variant, 45, 47)
    assert 2 * RASTER_STEP < 45 * 47
    (found,) = coder_of(variant).read([task_of(written(coder_of(variant), y_hat, z_hat), y_hat, z_hat)])
    assert torch.equal(found, y_hat)


@pytest.mark.parametrize("variant", OF_EACH_KIND, ids=str)
def test_images_in_lockstep_decode_as_they_do_one_by_one(variant: Variant) -> None:
    """Their sizes and ranges differ; the widest range determines the number of pieces for all of them."""
    coder = coder_of(variant)
    latents = [some_latents(variant, *size, largest) for size, largest in zip(SIZES, (5, 40, 128, 700, 9), strict=True)]
    payloads = [written(coder, *one) for one in latents]
    alone = [coder.read([task_of(p, *one)])[0] for p, one in zip(payloads, latents, strict=True)]
    tasks = [task_of(p, *one) for p, one in zip(payloads, latents, strict=True)]
    together = coder.read(tasks)
    for (y_hat, _), first, second, task in zip(latents, alone, together, tasks, strict=True):
        assert torch.equal(first, y_hat)
        assert torch.equal(second, y_hat)
        task.reader.finish()


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    y_hat, z_hat = some_latents(JOINT, 9, 9)
    coder_of(JOINT).read([task_of(written(coder_of(JOINT), y_hat, z_hat), y_hat, z_hat)])
    assert torch.get_num_threads() == before


# --- anything can be coded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", OF_EACH_KIND, ids=str)
@pytest.mark.parametrize("largest", [128, 129, 5000, 32767])
def test_latents_of_sixteen_bits_round_trip(variant: Variant, largest: int) -> None:
    coder = coder_of(variant)
    y_hat, z_hat = some_latents(variant, 6, 8, largest)
    y_hat[0, 0, 0], y_hat[3, 2, 2] = largest, -largest - (largest == 32767)
    y_hat[5] = torch.randint(-2, 3, (6, 8))
    if z_hat is not None:
        z_hat[0] *= 1000
    task = task_of(written(coder, y_hat, z_hat), y_hat, z_hat)
    assert torch.equal(coder.read([task])[0], y_hat)
    task.reader.finish()


@pytest.mark.parametrize("variant", [JOINT, Variant("context", "laplace", 3)], ids=str)
def test_two_pieces_give_the_parameters_that_one_gives(variant: Variant) -> None:
    """If latents fit in one piece, the high piece is zero, even at both ends of the range."""
    coder = coder_of(variant)
    y_hat, z_hat = some_latents(variant, 5, 6, 128)
    y_hat[0, 0, :2] = torch.tensor([128, -128])
    found = []
    for latent_range in (LatentRange(-128, 128), LatentRange(-128, 129)):
        batch = TorchLatentBatch(coder, [(5, 6)], [z_hat], latent_range)
        batch.insert(0, y_hat.flatten(1).T.numpy())
        assert len(batch.y) == (1 if latent_range.highest == 128 else 2)
        with full_precision(coder.device):
            found.append(batch.raw(0, 30))
    assert torch.equal(*found)


PINNED = {
    JOINT: "0db84f3eecf50981e404249e375bbc180fc02a6293e5ae66563b5ec87a1a1206",
    MIXTURE: "fb479eba61f84c26e79cd9bca1ebb954f4238f055be3c1636ba449cba2434cfd",
    Variant("joint", "laplace"): "50c3eb7088edb41bf045d273820f891aad8f2e6d2e5d551cce5cdb21b8c88b95",
}


@pytest.mark.parametrize("variant", PINNED, ids=str)
def test_the_payload_of_known_latents_is_pinned(variant: Variant) -> None:
    """The latents have escapes from all windows and need one or two pieces; the golden files have neither."""
    density = ConditionalDensity(variant.config())
    golden = Codec(load_golden("joint" if variant.num_components == 1 else "mixture")).latents  # never retrained
    assert golden is not None
    coder = LatentCoder(golden.h_s, golden.context, LatentTables(density, 12))
    digest = hashlib.sha256()
    for factor in (3, 300):
        y_hat = (torch.arange(12 * 7 * 9).view(12, 7, 9) * 7919 % 79 - 39).int() * factor
        z_hat = (torch.arange(8 * 2 * 3).view(8, 2, 3) * 104729 % 43 - 21).int()
        digest.update(written(coder, y_hat, z_hat))
    assert digest.hexdigest() == PINNED[variant]


def tables_of(family: DensityName, num_components: int) -> LatentCoder:
    """Create a coder whose tables are tested; its h_s is never run."""
    density = ConditionalDensity(ModelConfig("mean_scale_hyperprior", 4, 4, family, num_components))
    return LatentCoder(ExactHyperSynthesis(HyperSynthesis(4, 4, 8, False)), None, LatentTables(density, 4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
def test_escapes_of_every_kind_of_window_round_trip_at_both_ends(family: DensityName, num_components: int) -> None:
    coder = tables_of(family, num_components)
    sigma = torch.tensor([0.05, 1.0, 4.0, 20.0, 200.0])[:, None, None].expand(5, num_components, 4)
    sigma = sigma.repeat(3, 1, 1)
    mu = torch.tensor([-4096.0, 0.3, 4096.0]).repeat_interleave(5)[:, None, None].expand(15, num_components, 4)
    blocks = [sigma, mu] + ([torch.zeros(15, num_components, 4)] if num_components > 1 else [])
    windows = coder.tables.windows(torch.stack(blocks, dim=1).mul(4096).flatten(1).numpy())
    assert windows.kind.reshape(3, 5, 4)[:, :, 0].tolist() == [list(range(len(WIDTHS)))] * 3
    size = np.array(WIDTHS)[windows.kind] - 1
    for offset in (-1, 0, "last", "behind", -32768, 32767):
        values = windows.lowest + (size - (offset == "last") if isinstance(offset, str) else offset)
        values = values.astype(np.int32) if isinstance(offset, str) or abs(offset) < 2 else np.full_like(values, offset)
        for latent_range in (LatentRange(-32768, 32767), LatentRange(int(values.min()), int(values.max()))):
            writer = Writer(measure=True)
            coder._write_steps(writer, values, windows, [0, len(values)], latent_range)
            reader = Reader(writer.payload())
            task = DecodeTask(reader, 1, 15, None, latent_range)
            assert np.array_equal(coder._read_step([task], windows, [0, len(values)]), values)
            reader.finish()
            assert writer.bits <= len(values) * (24 + math.log2(latent_range.size))
            outside = offset not in (0, "last")
            if outside:
                assert writer.bits >= len(values) * math.log2(latent_range.size)


def test_escapes_of_images_in_lockstep_are_read_from_their_own_payloads() -> None:
    coder = tables_of("gaussian", 2)
    raw = torch.randint(-(2**24), 2**24 + 1, (60, 3 * 2 * 4)).float()
    windows, latent_range = coder.tables.windows(raw.numpy()), LatentRange(-300, 300)
    values = np.random.default_rng(0).integers(-300, 301, 240, dtype=np.int32)
    bounds, tasks = [0, 20, 160, 240], []
    for start, stop in pairwise(bounds):
        writer, part = Writer(), Windows(*(field[..., start:stop] for field in windows))
        coder._write_steps(writer, values[start:stop], part, [0, stop - start], latent_range)
        tasks.append(DecodeTask(Reader(writer.payload()), 1, (stop - start) // 4, None, latent_range))
    assert np.array_equal(coder._read_step(tasks, windows, bounds), values)
    for task in tasks:
        task.reader.finish()


def test_an_escape_costs_no_more_than_24_bits_and_those_of_the_range() -> None:
    coder = tables_of("gaussian", 2)
    raw = torch.randint(-(2**24), 2**24 + 1, (50, 3 * 2 * 4)).float()
    windows = coder.tables.windows(raw.numpy())
    values = np.random.default_rng(0).integers(-300, 301, 200, dtype=np.int32)
    writer = Writer(measure=True)
    coder._write_steps(writer, values, windows, [0, len(values)], LatentRange(-300, 300))
    assert writer.bits <= 200 * (24 + math.log2(601))
    task = DecodeTask(Reader(writer.payload()), 1, 50, None, LatentRange(-300, 300))
    assert np.array_equal(coder._read_step([task], windows, [0, len(values)]), values)


def test_every_layer_is_among_those_of_the_fingerprint() -> None:
    for variant in OF_EACH_KIND:
        coder = coder_of(variant)
        listed = {id(layer) for layer in coder.layers()}
        context: ExactContextNetwork | None = coder.context
        expected = [*(coder.h_s.layers if coder.h_s is not None else [])]
        if context is not None:
            expected += [context.context, *context.layers]
            expected += [] if context.from_psi is None else [context.from_psi]
        assert listed == {id(layer) for layer in expected}
