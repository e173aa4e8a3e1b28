"""Small plots as SVG text for the report: no script, no font and no file of their own, right on paper and in the dark.

Colours and font sizes are classes that the report's style sheet defines (tasks/report.html.j2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A named curve; `style` is a class of the style sheet: candidate, champion, second."""

    name: str
    points: Points
    style: str


@dataclass(frozen=True)
class Frame:
    """Axes: data from (left, bottom) to (right, top) on a drawing of `width` x `height` px."""

    left: float
    right: float
    bottom: float
    top: float
    width: int = 430
    height: int = 240
    margins: tuple[int, int, int, int] = (14, 76, 36, 46)  # px: top, right (names of curves), bottom, left

    def x(self, value: float) -> float:
        _, right, _, left = self.margins
        return left + (value - self.left) / (self.right - self.left) * (self.width - left - right)

    def y(self, value: float) -> float:
        top, _, bottom, _ = self.margins
        return self.height - bottom - (value - self.bottom) / (self.top - self.bottom) * (self.height - top - bottom)


def text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="t {style}" text-anchor="{anchor}">{escape(content)}</text>'


def drawing(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """The finished drawing; `label` is read to those who do not see it."""
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px"'
    return f'<svg {size} role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, 1, 2 or 5 times a power of ten apart."""
    rough = max(high - low, 1e-12) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def axes(frame: Frame, x_name: str, whole_x: bool = False) -> list[str]:
    """Grid lines with their numbers, and what x is."""
    parts = []
    for value in ticks(frame.bottom, frame.top):
        y = frame.y(value)
        parts.append(_rule(frame.x(frame.left), y, frame.x(frame.right), y, "grid"))
        parts.append(
            text(frame.x(frame.left) - 7, y + 4, f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}", "", "end")
        )
    for value in ticks(frame.left, frame.right):
        if not whole_x or value == int(value):
            parts.append(text(frame.x(value), frame.y(frame.bottom) + 17, f"{value:g}", "", "middle"))
    middle = (frame.x(frame.left) + frame.x(frame.right)) / 2
    return [*parts, text(middle, frame.height - 3, x_name, "", "middle")]


def line_chart(lines: Sequence[Line], x_name: str, mark: float | None = None, mark_name: str = "") -> str:
    """Curves named at their right end, and a dashed line at x = `mark`."""
    finite = [replace(line, points=[point for point in line.points if math.isfinite(point[1])]) for line in lines]
    lines = [line for line in finite if line.points]
    if not lines:
        return ""
    points = [point for line in lines for point in line.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    spread = (max(ys) - min(ys)) or abs(max(ys)) or 1.0
    frame = Frame(min(xs), max(*xs, min(xs) + 1), min(ys) - 0.05 * spread, max(ys) + 0.05 * spread)
    parts = axes(frame, x_name, whole_x=True)
    if mark is not None:
        parts.append(_rule(frame.x(mark), frame.y(frame.bottom), frame.x(mark), frame.y(frame.top), "mark"))
        left = mark > (frame.left + frame.right) / 2
        ends_high = frame.y(lines[0].points[-1][1]) < frame.height / 2  # keep clear of the curve
        height = frame.y(frame.bottom) - 7 if ends_high else frame.y(frame.top) + 10
        parts.append(text(frame.x(mark) + (-5 if left else 5), height, mark_name, "", "end" if left else "start"))
    for line, y in zip(lines, _spread_out([frame.y(line.points[-1][1]) for line in lines]), strict=True):
        path = " ".join(f"{frame.x(x):.1f},{frame.y(value):.1f}" for x, value in line.points)
        parts.append(f'<polyline points="{path}" class="line {line.style}"/>')
        parts.append(text(frame.x(frame.right) + 6, y + 4, line.name, f"name {line.style}"))
    return drawing(frame.width, frame.height, parts, " and ".join(line.name for line in lines) + f" by {x_name}")


def interval(
    lower: float | None, value: float, upper: float | None, reach: float, limit: float | None = None, width: int = 200
) -> str:
    """A point with its interval on a line from -reach to reach, 0 marked; None: no bound. `limit`: a dashed mark."""
    height, pad = 22, 5

    def x(gain: float) -> float:
        return pad + (min(max(gain, -reach), reach) + reach) / (2 * reach) * (width - 2 * pad)

    low, high = -reach if lower is None else lower, reach if upper is None else upper
    side = "better" if low > 0 else "worse" if high < 0 else "open"
    parts = [_rule(pad, height / 2, width - pad, height / 2, "grid"), _rule(x(0), 2, x(0), height - 2, "zero")]
    if limit:
        parts.append(_rule(x(limit), 2, x(limit), height - 2, "mark"))
    parts.append(_rule(x(low), height / 2, x(high), height / 2, f"bar {side}"))
    parts.append(f'<circle cx="{x(value):.1f}" cy="{height / 2}" r="4" class="dot {side}"/>')
    return drawing(width, height, parts, f"gain {value:+.3f}, from {low:+.3f} to {high:+.3f}")


def gain(lower: float | None, value: float, upper: float | None, reach: float, limit: float | None, zero: str) -> str:
    """One gain with its interval, large and with its numbers; `zero` says what a gain of 0 means."""
    width, height, pad, middle = 640, 84, 60, 36

    def x(shown: float) -> float:
        return pad + (min(max(shown, -reach), reach) + reach) / (2 * reach) * (width - 2 * pad)

    low, high = -reach if lower is None else lower, reach if upper is None else upper
    side = "better" if low > 0 else "worse" if high < 0 else "open"
    ends = [(low, -12, "end"), (high, 12, "start")]
    parts = [_rule(pad, middle, width - pad, middle, "grid"), _rule(x(0), middle - 20, x(0), middle + 20, "zero")]
    if limit:
        parts.append(_rule(x(limit), middle - 20, x(limit), middle + 20, "mark"))
    parts.append(_rule(x(low), middle, x(high), middle, f"bar wide {side}"))
    parts.append(f'<circle cx="{x(value):.1f}" cy="{middle}" r="7" class="dot {side}"/>')
    parts.append(text(x(value), middle - 16, signed(value), f"big {side}", "middle"))
    parts += [text(x(end) + shift, middle + 4, signed(end), "", anchor) for end, shift, anchor in ends]
    parts.append(text(x(0), middle + 36, zero, "", "middle"))
    parts += [text(pad, middle + 36, "worse"), text(width - pad, middle + 36, "better", "", "end")]
    return drawing(width, height, parts, f"gain {value:+.3f}, from {low:+.3f} to {high:+.3f}")


def signed(value: float) -> str:
    """With its sign, and a real minus."""
    return f"{value:+.3f}".replace("-", "\u2212")


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _spread_out(heights: Sequence[float], min_gap: float = 13) -> list[float]:
    """Heights moved down where two names would overlap."""
    moved, last = dict[int, float](), -math.inf
    for index in sorted(range(len(heights)), key=lambda index: heights[index]):
        last = max(heights[index], last + min_gap)
        moved[index] = last
    return [moved[index] for index in range(len(heights))]
