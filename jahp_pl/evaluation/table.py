"""Formats evaluations as tables and sentences for terminals that are 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jahp_pl.evaluation.evaluate import ClassicalResult, Evaluation
from jahp_pl.measurement.roundtrip import CodingRow
from jahp_pl.quality import MS_SSIM_MIN_SIDE
from jahp_pl.text import count_of


def format_evaluation_table(evaluation: Evaluation) -> str:
    """Format one line per image, and the mean below."""
    width = max(5, *(len(result.row.name) for result in evaluation.images))
    header = _header("image", width, evaluation.classical_title)
    lines = [header, "-" * len(header)]
    lines += [_line(width, result.row, result.classical) for result in evaluation.images]
    lines.append("-" * len(header))
    lines.append(_line(width, evaluation.mean, evaluation.classical_mean))
    return "\n".join(lines)


def format_model_table(by_model: Mapping[str, Sequence[Evaluation]]) -> str:
    """Format one line per model and quality with means over all images.

    Args:
        by_model: evaluations by model name.
    """
    rows = [
        (name if evaluation.target.quality is None else f"{name}, {evaluation.target.quality:g}", evaluation)
        for name, evaluations in by_model.items()
        for evaluation in evaluations
    ]
    width = max(5, *(len(name) for name, _ in rows))
    header = _header("model", width, rows[0][1].classical_title)
    lines = [_line(width, evaluation.mean._replace(name=name), evaluation.classical_mean) for name, evaluation in rows]
    return "\n".join([header, "-" * len(header), *lines])


def summarize(evaluation: Evaluation) -> str:
    """Summarize the results in sentences, for readers who do not know the columns of the table."""
    mean, classical, count = evaluation.mean, evaluation.classical_mean, len(evaluation.images)
    mismatched = "every latent came back as it was written" if mean.mismatched_symbols == 0 else (
        f"{mean.mismatched_symbols} LATENTS CAME BACK CHANGED, which is a bug: please report it"
    )  # fmt: skip
    lines = [
        f"{count_of(count, 'image')} coded to real files, read back from disk and decoded: {mismatched}.",
        f"A pixel takes {mean.file_bpp:.3f} bits (24 before), {_hundredths(mean.gap_percent):+.2f} % over the "
        f"cross-entropy, and the pictures have {mean.file_psnr:.2f} dB PSNR.",
    ]
    if classical is not None:
        gain = mean.file_psnr - classical.psnr
        better = sum(r.row.file_psnr > r.classical.psnr for r in evaluation.images if r.classical is not None)
        verdict = "better" if gain > 0 else "worse"
        lines.append(
            f"{evaluation.classical_title} in files at least as large ({classical.bpp:.3f} bpp) has "
            f"{classical.psnr:.2f} dB: the model is {abs(gain):.2f} dB {verdict}, ahead on {better} of {count}."
        )
    if not _has_ms_ssim(evaluation):
        lines.append(f"{_WITHOUT_MS_SSIM}.")
    return "\n".join(lines)


def format_curve(evaluations: Sequence[Evaluation]) -> str:
    """Format one line per quality with means over all images."""
    header = "quality   level" + _columns(evaluations[0].classical_title)
    lines = [
        f"{evaluation.target.quality:7g} {evaluation.mean.level or 0:7.3f}"
        + _figures(evaluation.mean, evaluation.classical_mean)
        for evaluation in evaluations
    ]
    return "\n".join([header, "-" * len(header), *lines])


def explain_columns(evaluations: Iterable[Evaluation]) -> str:
    """Explain the columns of a table of means."""
    text = "gap: excess of the files over the cross-entropy; mismatched: latents that were decoded differently"
    return text if all(map(_has_ms_ssim, evaluations)) else f"{text}\n{_WITHOUT_MS_SSIM}"


_WITHOUT_MS_SSIM = f"MS-SSIM: only of images with sides of at least {MS_SSIM_MIN_SIDE} pixels"


def _has_ms_ssim(evaluation: Evaluation) -> bool:
    """Check whether all images are large enough for MS-SSIM."""
    return all(result.row.file_ms_ssim is not None for result in evaluation.images)


def _header(first: str, width: int, classical_title: str | None) -> str:
    return f"{first:{width}}   bytes" + _columns(classical_title)


def _columns(classical_title: str | None) -> str:
    """Return the headings of the columns that `_figures` fills."""
    header = "     bpp    PSNR MS-SSIM"
    if classical_title is not None:
        header += f" | {classical_title + ':':>11} bpp    PSNR MS-SSIM"
    return header + " |  gap %  mismatched   enc s   dec s"


def _line(width: int, row: CodingRow, classical: ClassicalResult | None) -> str:
    return f"{row.name:{width}} {row.file_bytes:7d}" + _figures(row, classical)


def _figures(row: CodingRow, classical: ClassicalResult | None) -> str:
    line = f"  {row.file_bpp:.4f}  {row.file_psnr:6.2f} {_similarity(row.file_ms_ssim)}"
    if classical is not None:
        line += f" | {classical.bpp:15.4f}  {classical.psnr:6.2f} {_similarity(classical.ms_ssim)}"
    return (
        f"{line} | {_hundredths(row.gap_percent):6.2f}  {row.mismatched_symbols:10d}  {row.encode_seconds:6.2f}  "
        f"{row.decode_seconds:6.2f}"
    )


def _similarity(value: float | None) -> str:
    return "      -" if value is None else f"{value:7.4f}"


def _hundredths(value: float) -> float:
    """Round to hundredths, without a negative zero."""
    return round(value, 2) + 0.0
