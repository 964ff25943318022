"""Draw wavefront.svg from the codec's own coding order: python docs/wavefront.py > docs/wavefront.svg."""

from __future__ import annotations

from collections.abc import Iterator

from jahp_pl.codec.entropy.wavefront import coding_order

HEIGHT, WIDTH, SIDE, MARGIN = 6, 10, 44, 12
OFFSETS = [(row, column) for row in (-2, -1, 0) for column in range(-2, 3) if row < 0 or column < 0]
"""The causal 5x5 mask."""
STEP, CENTER = 12, (2, 6)
"""The step shown as the next one, and one of its positions."""
DONE, NOW, LATER, CONTEXT = "#cfdfe8", "#e07a2f", "#ffffff", "#2a6f97"


def steps() -> dict[tuple[int, int], int]:
    """Return the step of each position, row and column."""
    plan = coding_order([(HEIGHT, WIDTH)], OFFSETS)
    step_of_rank = {rank: t for t, step in enumerate(plan.steps) for part in step for rank in range(*part[1:])}
    return {divmod(position, WIDTH): step_of_rank[rank] for position, rank in enumerate(plan.ranks[0].tolist())}


def drawing() -> Iterator[str]:
    """Return the lines of the drawing."""
    width, height = WIDTH * SIDE + 2 * MARGIN, HEIGHT * SIDE + 2 * MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    yield f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>'
    for (row, column), t in steps().items():
        x, y = MARGIN + column * SIDE, MARGIN + row * SIDE
        color = DONE if t < STEP else NOW if t == STEP else LATER
        text = "#ffffff" if t == STEP else "#24323c"
        yield f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="{color}" stroke="#8a99a5"/>'
        middle = f'x="{x + SIDE // 2}" y="{y + SIDE // 2 + 5}" text-anchor="middle" font-size="15" fill="{text}"'
        yield f"<text {middle}>{t}</text>"
    row, column = (MARGIN + place * SIDE for place in CENTER)
    corners = [(-2, -2), (3, -2), (3, 0), (0, 0), (0, 1), (-2, 1)]  # column, row: around the twelve positions
    points = " ".join(f"{column + SIDE * dx},{row + SIDE * dy}" for dx, dy in corners)
    yield f'<polygon points="{points}" fill="none" stroke="{CONTEXT}" stroke-width="4" stroke-linejoin="round"/>'
    yield "</svg>"


if __name__ == "__main__":
    print("\n".join(drawing()))  # noqa: T201
