"""Colours, markers and dashes of figures and page, in one place, so that a test can measure contrast and distinctness.

The series colours were searched greedily for the largest smallest distance in CIELAB under normal vision, protanopia,
deuteranopia and tritanopia (Machado et al. 2009, severity 1), each at 3:1 or more against its background. Colour never
stands alone: every series has its own marker and dash too.
"""

from __future__ import annotations

LIGHT = {
    "page": "#ffffff",
    "panel": "#f4f5f7",
    "line": "#c9ced6",
    "ink": "#1b1f24",
    "quiet": "#545b66",
    "link": "#0a58a8",
    "good": "#176b34",
    "bad": "#a8201a",
    "mark": "#ffe58a",
}
DARK = {
    "page": "#15171c",
    "panel": "#1f232a",
    "line": "#3d444f",
    "ink": "#e8eaee",
    "quiet": "#a7aebb",
    "link": "#8cc4ff",
    "good": "#77d393",
    "bad": "#ff9a92",
    "mark": "#5c4a00",
}
"""Role -> colour. ink, quiet, link, good and bad are text on page and on panel; ink is text on mark."""

LIGHT_SERIES = ("#0072b2", "#d55e00", "#552222", "#9900ff", "#bb7777", "#221188", "#883300", "#553366")
DARK_SERIES = ("#56b4e9", "#e69f00", "#9900ff", "#dd0055", "#eeddcc", "#3366bb", "#bb5511", "#999999")
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2), (10, 4), (1, 3), (5, 1, 1, 1, 1, 1), (12, 2, 4, 2))
"""Lengths on and off, in pixels; () is a solid line."""
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "h")
"""Matplotlib's names; svg.py draws the same shapes."""
SLOTS = len(LIGHT_SERIES)


def css() -> str:
    """Custom properties of both themes: the system's choice, unless the page's button has set `data-theme`."""

    def block(colours: dict[str, str], series: tuple[str, ...]) -> str:
        named = colours | {f"s{slot}": colour for slot, colour in enumerate(series)}
        return "".join(f"--{name}:{colour};" for name, colour in named.items())

    light, dark = block(LIGHT, LIGHT_SERIES), block(DARK, DARK_SERIES)
    slots = "".join(f".s{slot}{{--s:var(--s{slot})}}" for slot in range(SLOTS))
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root,:root[data-theme]{{color-scheme:light;{light}}}}}"
        f"{slots}"
    )


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two "#rrggbb" colours, 1 to 21."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
