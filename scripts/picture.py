"""Paints the screen of a Textual app as PNG, cell by cell: columns stay columns, whatever the font.

Needs Pillow and DejaVu Sans Mono (fonts-dejavu-core), which has no braille: those dots are drawn here.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.color import Color
from rich.style import Style
from textual.app import App
from textual.color import Color as Tint

FONT = "DejaVuSansMono"
FONT_PIXELS = 13
CELL = (8, 16)
MARGIN = 8
BRAILLE_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each dot, in the order of Unicode's bits."""
COLOURS = 256
"""So many stand in the file: the themes have fewer, the rest are edges of letters."""


def paint(app: App[None], file: Path) -> int:
    """Write what is on the app's screen now to a PNG; give its size in bytes."""
    columns, rows = app.size
    variables = app.theme_variables
    ground, ink = variables["background"], variables["foreground"]
    size = (columns * CELL[0] + 2 * MARGIN, rows * CELL[1] + 2 * MARGIN)
    image = Image.new("RGB", size, ground)
    canvas = ImageDraw.Draw(image)
    fonts = {
        is_bold: ImageFont.truetype(f"{FONT}{'-Bold' if is_bold else ''}.ttf", FONT_PIXELS)
        for is_bold in (False, True)
    }
    # Textual's own screenshot comes from the same private place, but as SVG for a font from the network.
    for y, strip in enumerate(app.screen._compositor.render_strips()):  # noqa: SLF001 -- see above
        x = 0
        for text, style, control in strip:
            if control:
                continue
            looks = style or Style.null()
            front, back = _colours(looks, ink, ground)
            for character in text:
                width = cell_len(character)
                left, top = MARGIN + x * CELL[0], MARGIN + y * CELL[1]
                canvas.rectangle((left, top, left + width * CELL[0] - 1, top + CELL[1] - 1), fill=back)
                if not character.isspace():
                    _draw(canvas, (left, top), character, front, fonts[bool(looks.bold)])
                if looks.underline:
                    canvas.line((left, top + 14, left + width * CELL[0] - 1, top + 14), fill=front)
                x += width
    file.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
    return file.stat().st_size


def _draw(
    canvas: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    character: str,
    colour: str,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Draw a letter by the font; the blocks and lines that must meet their neighbours by their cell."""
    left, top = corner
    width, height = CELL
    right, bottom = left + width - 1, top + height - 1
    if "▁" <= character <= "█":
        eighths = ord(character) - 0x2580
        canvas.rectangle((left, bottom + 1 - height * eighths // 8, right, bottom), fill=colour)
    elif "▉" <= character <= "▏":
        eighths = 0x2590 - ord(character)
        canvas.rectangle((left, top, left + max(width * eighths // 8, 1) - 1, bottom), fill=colour)
    elif "\u2800" <= character <= "\u28ff":
        for dot, (column, row) in enumerate(BRAILLE_DOTS):
            if (ord(character) - 0x2800) >> dot & 1:
                x, y = left + 1 + 4 * column, top + 1 + 4 * row
                canvas.rectangle((x, y, x + 1, y + 1), fill=colour)
    elif character == "▔":
        canvas.rectangle((left, top, right, top + 1), fill=colour)
    elif character == "│":
        canvas.line((left + width // 2, top, left + width // 2, bottom), fill=colour)
    else:
        canvas.text((left, top + 12), character, fill=colour, font=font, anchor="ls")


def _colours(style: Style, ink: str, ground: str) -> tuple[str, str]:
    front, back = _hex(style.color, ink), _hex(style.bgcolor, ground)
    if style.reverse:
        front, back = back, front
    if style.dim:
        front = Tint.parse(front).blend(Tint.parse(back), 0.4).hex
    return front, back


def _hex(colour: Color | None, default: str) -> str:
    if colour is None or colour.is_default:
        return default
    return colour.get_truecolor().hex
