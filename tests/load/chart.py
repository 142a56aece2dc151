"""Line charts as SVG, both axes logarithmic: what grows in proportion is a straight line at 45 degrees."""
import math
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 70, 150, 40, 50
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


def number(value):
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def decades(values):
    low, high = min(values), max(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def chart(title, across, up, lines):
    """`lines`: name → [(x, y), …], all above zero."""
    points = [point for line in lines.values() for point in line]
    (x0, x1), (y0, y1) = decades([x for x, _ in points]), decades([y for _, y in points])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x, y):
        return (LEFT + (math.log10(x) - x0) / (x1 - x0) * width,
                TOP + height - (math.log10(y) - y0) / (y1 - y0) * height)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>']
    for exponent in range(x0, x1 + 1):
        x, _ = place(10.0 ** exponent, 10.0 ** y0)
        out.append(f'<path d="M{x:.1f} {TOP}V{TOP + height}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{TOP + height + 18}" text-anchor="middle">{number(10.0 ** exponent)}</text>')
    for exponent in range(y0, y1 + 1):
        _, y = place(10.0 ** x0, 10.0 ** exponent)
        out.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + width}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(10.0 ** exponent)}</text>')
    out.append(f'<text x="{LEFT + width / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    out.append(f'<text transform="translate(16 {TOP + height / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    for at, (name, line) in enumerate(lines.items()):
        colour = COLOURS[at % len(COLOURS)]
        placed = [place(x, y) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        out.append(f'<text x="{LEFT + width + 12}" y="{TOP + 14 + 18 * at}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])
