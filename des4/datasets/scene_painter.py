"""The painter of `Scenes`: one landscape and its mask, at three times the size, reduced, textured and lit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Colour = Floats
"""RGB, 0-255."""
Points = Iterable[tuple[float, float]]
"""(x, y) as shares of the scene's side, y downwards."""

CLASSES = ("sky", "mountain", "meadow", "water", "tree", "house", "boat", "sheep")
SKY, MOUNTAIN, MEADOW, WATER, TREE, HOUSE, BOAT, SHEEP = range(len(CLASSES))

_MOODS = np.array(  # zenith, horizon, light (per cent)
    [
        [(70, 130, 200), (196, 222, 238), (102, 101, 97)],  # noon
        [(104, 132, 176), (252, 212, 150), (110, 95, 74)],  # golden hour
        [(66, 58, 112), (242, 146, 122), (92, 74, 82)],  # dusk
        [(148, 156, 166), (208, 212, 214), (86, 88, 90)],  # overcast
        [(138, 180, 198), (242, 234, 216), (100, 99, 94)],  # morning mist
        [(30, 42, 88), (108, 128, 170), (56, 63, 86)],  # blue hour
    ],
    np.float32,
)
_SEASONS = np.array(  # meadow, leaves
    [
        [(122, 164, 70), (58, 112, 52)],  # spring
        [(150, 168, 78), (46, 94, 50)],  # summer
        [(196, 176, 98), (82, 112, 56)],  # drought
        [(158, 148, 82), (196, 112, 44)],  # autumn
        [(226, 230, 236), (64, 88, 76)],  # winter
        [(104, 150, 84), (120, 142, 70)],
    ],
    np.float32,
)
_ROCKS = np.array([(112, 118, 134), (134, 118, 106), (96, 116, 104), (150, 136, 140)], np.float32)
_WALLS = np.array([(240, 236, 226), (232, 208, 158), (168, 60, 48), (206, 152, 92), (146, 140, 132)], np.float32)
_ROOFS = np.array([(158, 70, 52), (84, 88, 100), (120, 84, 62), (186, 160, 104)], np.float32)
_SAILS = np.array([(250, 248, 240), (244, 232, 206), (206, 74, 56), (232, 150, 60), (70, 104, 150)], np.float32)
_HULLS = np.array([(240, 240, 238), (150, 52, 44), (52, 66, 98), (120, 82, 54)], np.float32)
_WOOL = np.array([(246, 242, 232), (238, 230, 214), (226, 214, 190), (92, 78, 68)], np.float32)
_STONES = np.array([(222, 220, 214), (176, 172, 166), (140, 136, 132)], np.float32)
_STRAW = np.array((214, 184, 116), np.float32)
_PATH = np.array((208, 182, 140), np.float32)
_BARK = np.array((84, 64, 50), np.float32)
_WHITE = np.array((248, 248, 250), np.float32)
_DARK = np.array((46, 44, 50), np.float32)

_OVERSAMPLING = 3


class Painter:
    """Paints one scene from back to front, colours and classes on two canvases of three times the size."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        side = size * _OVERSAMPLING
        self.label_canvas = Image.new("L", (side, side), SKY)
        self.label_pen = ImageDraw.Draw(self.label_canvas)
        mood, other = _MOODS[rng.choice(len(_MOODS), 2, replace=False)]
        tones = mood + rng.uniform(0, 0.35) * (other - mood) + 5 * rng.standard_normal((3, 1), np.float32)
        self.zenith, self.haze, self.light = tones
        self.grass, self.leaves = self._any(_SEASONS)
        self.rock = self._any(_ROCKS)
        self.horizon = rng.uniform(0.3, 0.48)
        self.ys = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]

    def paint(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Paint the scene: (size, size, 3) RGB and (size, size) classes."""
        rng = self.rng
        self._open(self._sky())
        self._mountains()
        shore = self.horizon
        if rng.random() < 0.72:
            shore += rng.uniform(0.12, 0.3)
            self._open(self._with_water(self._reduced(), shore))
            self._boats(shore)
        self._land(shore)
        image, label = self._reduced(), np.asarray(self.label_canvas)[1::_OVERSAMPLING, 1::_OVERSAMPLING].copy()
        return self._lit(self._textured(image, label)), label

    # Canvases, pens and noise

    def _open(self, image: Floats) -> None:
        """Go on painting on top of `image` (size, size, 3)."""
        side = self.size * _OVERSAMPLING
        small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        self.canvas = small.resize((side, side), Image.Resampling.NEAREST)
        self.pen = ImageDraw.Draw(self.canvas)

    def _reduced(self) -> Floats:
        return np.asarray(self.canvas.reduce(_OVERSAMPLING), np.float32)

    def _polygon(self, points: Points, colour: Colour, label: int | None = None) -> None:
        """Fill a polygon; without a label the classes below stay (shading, shadows)."""
        side = self.size * _OVERSAMPLING
        corners = [(x * side, y * side) for x, y in points]
        self.pen.polygon(corners, _rgb(colour))
        if label is not None:
            self.label_pen.polygon(corners, label)

    def _ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, label: int | None = None) -> None:
        side = self.size * _OVERSAMPLING
        box = ((x - rx) * side, (y - ry) * side, (x + rx) * side, (y + ry) * side)
        self.pen.ellipse(box, _rgb(colour))
        if label is not None:
            self.label_pen.ellipse(box, label)

    def _any(self, colours: Floats) -> Colour:
        """Choose one of the colours and vary it."""
        colour: Colour = colours[self.rng.integers(len(colours))]
        varied: Colour = colour + 7 * self.rng.standard_normal(colour.shape, np.float32)
        return varied

    def _noise(self, rows: int, columns: int, height: int | None = None) -> Floats:
        """Smooth noise (height, size), about N(0, 1) at the knots of a grid of rows × columns; height: default size."""
        grid = Image.fromarray(self.rng.standard_normal((rows + 3, columns + 3), np.float32))
        shape = (self.size, height or self.size)
        return np.asarray(grid.resize(shape, Image.Resampling.BICUBIC, (1, 1, columns + 2, rows + 2)))

    def _ridge(self, roughness: float, octaves: int, bumps: int = 2) -> Floats:
        """Outline of a ridge at 61 places, in about -1..1; each octave has `roughness` times the height of the last."""
        xs, out = np.linspace(0, 1, 61), np.zeros(61)
        for octave in range(octaves):
            knots = bumps * 2**octave + 1
            out += roughness**octave * np.interp(xs, np.linspace(0, 1, knots), self.rng.uniform(-1, 1, knots))
        return out.astype(np.float32)

    def _ground(self, heights: Floats, colour: Colour, label: int) -> None:
        """Fill everything below an outline given at evenly spaced places, as y."""
        xs = np.linspace(-0.01, 1.01, len(heights)).tolist()
        self._polygon([*zip(xs, heights.tolist(), strict=True), (1.01, 1.01), (-0.01, 1.01)], colour, label)

    def _faded(self, colour: Colour, y: float) -> Colour:
        """Let air stand before what is far away: colours fade towards the haze near the horizon."""
        farness = min(1.0, max(0.0, (1 - y) / (1 - self.horizon)))
        faded: Colour = colour + np.float32(0.45 * farness**2) * (self.haze - colour)
        return faded

    # The background

    def _sky(self) -> Floats:
        """Paint the sky down to the horizon; what lies below is covered anyway."""
        rng, height = self.rng, int(self.horizon * self.size) + 2
        ys = self.ys[:height]
        depth = np.minimum(ys / self.horizon, 1)[..., None] ** 0.9
        sky = self.zenith + depth * (self.haze - self.zenith)
        x, y = rng.uniform(0.05, 0.95), rng.uniform(0.05, self.horizon)
        distance = np.hypot(self.ys.T - x, ys - y)[..., None]
        glow = 0.5 * np.exp(-distance / 0.16) + np.clip(rng.uniform(0.02, 0.04) - distance, 0, 0.01) * 60
        sun = np.array((248, 244, 220), np.float32)
        sky = sky + glow * (sun - sky)
        density = self._noise(3, 3, height) + 0.5 * self._noise(5, 6, height) + 0.25 * self._noise(11, 16, height)
        cover = np.clip((density + rng.uniform(-1.6, 0.5)) * 0.9, 0, 0.9)[..., None]
        shade = np.clip(0.5 - 0.35 * self._noise(6, 8, height), 0, 1)[..., None]
        sky += cover * (0.5 * (self.haze + _WHITE) - 26 * shade - sky)
        return np.pad(sky, ((0, self.size - height), (0, 0), (0, 0)))

    def _mountains(self) -> None:
        rng, layers = self.rng, self.rng.integers(1, 4)
        snow = rng.random() < 0.5
        for layer in range(layers):
            nearness = (layer + 1) / layers
            height = rng.uniform(0.1, 0.24) * (1.2 - 0.6 * nearness)
            outline = self.horizon - height + 0.5 * height * self._ridge(0.5, 5)
            colour = self.haze + (0.3 + 0.5 * nearness) * (self.rock - self.haze)
            self._ground(np.minimum(outline, self.horizon - 0.01), colour, MOUNTAIN)
            if snow and layer < 2:
                line = outline.min() + rng.uniform(0.3, 0.6) * (self.horizon - outline.min())
                edge = np.maximum(outline, line + 0.025 * self._ridge(0.9, 6, 4))
                xs = np.linspace(-0.01, 1.01, 61)
                cap = [*zip(xs, outline, strict=True), *zip(xs[::-1], edge[::-1], strict=True)]
                self._polygon(cap, colour + 0.8 * (_WHITE - colour))

    def _with_water(self, above: Floats, shore: float) -> Floats:
        """Cover what lies below the horizon with water: a rippled mirror of what is above it."""
        rng, size = self.rng, self.size
        first = round(self.horizon * size)
        depth = np.arange(size - first, dtype=np.float32)[:, None]
        ripple = self._noise(30, 5, size - first)
        rows = np.clip(first - 1 - depth + ripple * (0.6 + 0.05 * depth), 0, first - 1).astype(np.intp)
        columns = np.clip(np.arange(size) + 1.4 * ripple, 0, size - 1).astype(np.intp)
        mirror = above[rows, columns]
        tint = self.zenith * 0.55 + np.array(rng.uniform((0, 20, 25), (25, 60, 60)), np.float32)
        clear = np.clip(rng.uniform(0.15, 0.5) + 0.012 * depth * 160 / size, 0, 0.8)[..., None]
        water = mirror + clear * (tint - mirror) + 7 * ripple[..., None]
        foam = np.clip(self._noise(44, 9, size - first)[..., None] - rng.uniform(1.4, 2.4), 0, 0.7)
        above[first:] = water + foam * (_WHITE - water)
        self._polygon([(0, first / size), (1, first / size), (1, 1), (0, 1)], _DARK, WATER)
        if rng.random() < 0.7:
            self._far_shore(above, first)
        return above

    def _far_shore(self, image: Floats, first: int) -> None:
        """Plant a thin wood along the far shore, with its reflection."""
        rng, size = self.rng, self.size
        top = 0.018 + 0.02 * self._ridge(0.7, 6, 3)
        heights = np.interp(np.linspace(0, 1, size), np.linspace(0, 1, 61), top) * size + rng.uniform(-1, 1, size)
        rows = np.arange(size)[:, None]
        wood = (rows < first) & (rows >= first - heights)
        mirror = (rows >= first) & (rows < first + 0.8 * heights)
        colour = 0.65 * self.leaves + 0.35 * self.haze
        image[wood] = colour
        image[mirror] += 0.6 * (0.8 * colour - image[mirror])
        self.label_canvas.paste(
            TREE,
            mask=Image.fromarray((wood * 255).astype(np.uint8)).resize(
                self.label_canvas.size, Image.Resampling.NEAREST
            ),
        )

    # What stands in it

    def _boats(self, shore: float) -> None:
        rng = self.rng
        depths = np.sort(rng.uniform(0.05, 0.8, rng.integers(2, 5)))
        boats = rng.random() < 0.6
        for depth in depths:
            y = self.horizon + depth * (shore - self.horizon)
            x, size = rng.uniform(0.06, 0.94), (0.03 + 0.055 * depth) * rng.uniform(0.8, 1.3)
            if not boats or rng.random() < 0.3:  # a buoy: water, whatever its colour
                colour = self._faded(self._any(_SAILS), y)
                self._ellipse(x, y, 0.14 * size, 0.16 * size, colour)
                continue
            self._boat(x, y, size)

    def _boat(self, x: float, y: float, size: float) -> None:
        rng = self.rng
        way = size * rng.choice((-1, 1))
        hull, sail = self._faded(self._any(_HULLS), y), self._faded(self._any(_SAILS), y)
        self._ellipse(x, y + 0.3 * size, 0.8 * size, 0.1 * size, 0.35 * self.zenith + 0.3 * hull)
        if rng.random() < 0.7:
            mast = y - rng.uniform(1.5, 2.1) * size
            self._polygon([(x, y - 0.1 * size), (x, mast), (x + 0.85 * way, y - 0.2 * size)], sail, BOAT)
            jib = [
                (x - 0.08 * way, y - 0.15 * size),
                (x - 0.08 * way, mast + 0.3 * size),
                (x - 0.75 * way, y - 0.2 * size),
            ]
            self._polygon(jib, 0.9 * sail, BOAT)
        else:
            cabin = [
                (x - 0.3 * way, y),
                (x - 0.3 * way, y - 0.5 * size),
                (x + 0.2 * way, y - 0.5 * size),
                (x + 0.35 * way, y),
            ]
            self._polygon(cabin, sail, BOAT)
            self._ellipse(x, y - 0.28 * size, 0.12 * size, 0.1 * size, _DARK)
        top, keel = y - 0.12 * size, y + 0.25 * size
        self._polygon([(x - way, top), (x + way, top), (x + 0.7 * way, keel), (x - 0.75 * way, keel)], hull, BOAT)

    def _land(self, shore: float) -> None:
        """Lay the hills of the near side and set everything that stands on them, far things first."""
        rng = self.rng
        hills = rng.integers(2, 4)
        tops = np.linspace(shore + 0.02, rng.uniform(0.7, 0.82), hills)
        for number, top in enumerate(tops):
            outline = top + rng.uniform(0.02, 0.05) * self._ridge(0.3, 2)
            tone = self.grass + rng.normal(0, 9) + (self.leaves - self.grass) * rng.uniform(0, 0.3)
            self._ground(outline, self._faded(tone, float(top)), MEADOW)
            if number == hills - 1 and rng.random() < 0.5:
                self._path(float(outline[30]))
            end = tops[number + 1] + 0.05 if number + 1 < hills else 1.02
            self._things(outline, float(end))

    def _path(self, top: float) -> None:
        rng, steps = self.rng, np.linspace(0, 1, 14)
        centre = rng.uniform(0.25, 0.75) + rng.uniform(-0.2, 0.2) * np.sin(steps * rng.uniform(2, 5)) * (0.3 + steps)
        half, ys = 0.008 + 0.07 * steps**1.5, top + 0.015 + steps * (1.02 - top)
        left, right = zip(centre - half, ys, strict=True), zip(centre + half, ys, strict=True)
        self._polygon([*left, *list(right)[::-1]], 0.75 * _PATH + 0.25 * self.grass)

    def _things(self, outline: Floats, end: float) -> None:
        """Set the trees, houses, sheep and decoys of one hill, sorted by how near they stand."""
        rng = self.rng

        def spots(count: int, x: float | None = None, spread: float = 0.5) -> list[tuple[float, float]]:
            """(y, x) of places on this hill, around x if given."""
            xs = rng.uniform(0, 1, count) if x is None else np.clip(rng.normal(x, spread, count), 0.02, 0.98)
            tops = np.interp(xs, np.linspace(0, 1, len(outline)), outline) + 0.012
            return [
                (float(y), float(x)) for y, x in zip(tops + rng.uniform(0, 1, count) * (end - tops), xs, strict=True)
            ]

        grove = rng.uniform(0, 1)
        things = [(spot, self._tree) for spot in spots(int(rng.integers(0, 7)), grove, 0.14)]
        things += [(spot, self._tree) for spot in spots(int(rng.integers(0, 3)))]
        things += [(spot, self._decoy) for spot in spots(int(rng.integers(0, 7)))]
        if rng.random() < 0.3:
            things += [(spot, self._house) for spot in spots(int(rng.integers(1, 4)), rng.uniform(0.1, 0.9), 0.12)]
        if rng.random() < 0.3:
            things += [(spot, self._sheep) for spot in spots(int(rng.integers(3, 9)), rng.uniform(0.1, 0.9), 0.12)]
        for (y, x), draw in sorted(things, key=lambda thing: thing[0]):
            draw(x, y, 0.22 + 0.78 * max(0.0, y - self.horizon) / (1 - self.horizon))

    def _shadow(self, x: float, y: float, width: float, colour: Colour) -> None:
        self._ellipse(x + 0.25 * width, y, width, 0.22 * width, 0.62 * colour)

    def _tree(self, x: float, y: float, scale: float) -> None:
        rng, height = self.rng, scale * self.rng.uniform(0.16, 0.34)
        leaves = self._faded(self.leaves + rng.normal(0, 12) + rng.normal(0, 7, 3), y)
        self._shadow(x, y, 0.3 * height, self._faded(self.grass, y))
        trunk = 0.035 * height
        self._polygon(
            [(x - trunk, y), (x - trunk, y - 0.4 * height), (x + trunk, y - 0.4 * height), (x + trunk, y)], _BARK, TREE
        )
        if rng.random() < 0.45:  # a conifer
            width = rng.uniform(0.2, 0.3) * height
            for tier, (low, up) in enumerate(((0.12, 0.55), (0.36, 0.78), (0.6, 1.0))):
                half, foot, tip = width * (1 - 0.25 * tier), y - low * height, y - up * height
                self._polygon([(x - half, foot), (x, tip), (x + half, foot)], leaves, TREE)
                self._polygon([(x + 0.15 * half, foot), (x, tip), (x + half, foot)], 0.74 * leaves)
            return
        crown = height * rng.uniform(0.2, 0.27)
        for _ in range(7):
            dx, dy = rng.uniform(-0.8, 0.8) * crown, rng.uniform(-0.9, 0.6) * crown
            tone = leaves * (0.86 - 0.22 * (dx + dy) / crown * 0.6)
            self._ellipse(x + dx, y - 0.66 * height + dy, 0.62 * crown, 0.56 * crown, tone, TREE)

    def _house(self, x: float, y: float, scale: float) -> None:
        rng = self.rng
        width, height = scale * rng.uniform(0.1, 0.16), scale * rng.uniform(0.07, 0.1)
        depth, gable, way = width * rng.uniform(0.5, 1.0), height * rng.uniform(0.6, 1.0), rng.choice((-1, 1))
        wall, roof = self._faded(self._any(_WALLS), y), self._faded(self._any(_ROOFS), y)
        self._shadow(x, y, 0.8 * width, self._faded(self.grass, y))
        front, corner, back = x - way * 0.5 * width, x + way * 0.5 * width, x + way * (0.5 * width + depth)
        top, rise, tip = y - height, y - 0.12 * height, (x, y - height - gable)
        ridge_end = (tip[0] + way * depth, tip[1] - 0.05 * height)
        self._polygon([(corner, y), (corner, top), (back, top), (back, rise)], 0.72 * wall, HOUSE)
        self._polygon([(front, y), (front, top), tip, (corner, top), (corner, y)], wall, HOUSE)
        eave = way * 0.08 * width
        self._polygon([tip, ridge_end, (back + eave, top), (corner + eave, top + 0.05 * height)], roof, HOUSE)
        edge = 0.12 * height
        self._polygon(
            [tip, (front - eave, top + edge), (front - eave, top), (tip[0], tip[1] - edge), ridge_end],
            0.85 * roof,
            HOUSE,
        )
        lit = np.array((250, 214, 120), np.float32) if rng.random() < 0.35 else _DARK
        for offset in (-0.26, 0.12):
            left, right = x + offset * width, x + (offset + 0.16) * width
            low, up = y - 0.45 * height, y - 0.8 * height
            self._polygon([(left, low), (left, up), (right, up), (right, low)], lit)
        self._polygon(
            [(x + dx * width, y - dy * height) for dx, dy in ((-0.06, 0), (-0.06, 0.4), (0.08, 0.4), (0.08, 0))],
            0.5 * roof,
        )

    def _sheep(self, x: float, y: float, scale: float) -> None:
        rng = self.rng
        size, way = 0.042 * scale * rng.uniform(0.85, 1.2), rng.choice((-1, 1))
        wool = self._faded(self._any(_WOOL), y)
        head = _DARK if rng.random() < 0.6 else 0.85 * wool
        self._shadow(x, y, 0.9 * size, self._faded(self.grass, y))
        for leg in (-0.5, -0.25, 0.3, 0.55):
            left, right = x + (leg - 0.09) * size, x + (leg + 0.09) * size
            self._polygon([(left, y), (left, y - 0.6 * size), (right, y - 0.6 * size), (right, y)], 0.7 * head, SHEEP)
        self._ellipse(x, y - 0.8 * size, size, 0.58 * size, wool, SHEEP)
        self._ellipse(x - 0.1 * size, y - 0.95 * size, 0.7 * size, 0.36 * size, 1.06 * wool)
        bowed = rng.uniform(0.5, 1.15)
        self._ellipse(x + 1.05 * way * size, y - bowed * size, 0.36 * size, 0.32 * size, head, SHEEP)

    def _decoy(self, x: float, y: float, scale: float) -> None:
        """Draw a rock, a bale of hay or a patch of flowers: meadow, in the colours of sheep and houses."""
        rng, kind = self.rng, self.rng.random()
        size = 0.034 * scale * rng.uniform(0.7, 1.5)
        if kind < 0.5:
            stone = self._faded(self._any(_STONES), y)
            self._shadow(x, y, 0.9 * size, self._faded(self.grass, y))
            angles, radii = np.linspace(0, 2 * np.pi, 9)[:-1], rng.uniform(0.7, 1.1, 8)
            corners = [
                (x + r * size * np.cos(a), y - 0.45 * size + 0.6 * r * size * np.sin(a))
                for a, r in zip(angles, radii, strict=True)
            ]
            self._polygon(corners, 0.78 * stone)
            self._polygon([(cx - 0.12 * size, cy - 0.12 * size) for cx, cy in corners[3:8]], stone)
        elif kind < 0.7:
            straw = self._faded(_STRAW + rng.normal(0, 8), y)
            self._shadow(x, y, 1.1 * size, self._faded(self.grass, y))
            self._ellipse(x + 0.5 * size, y - 0.7 * size, 0.8 * size, 0.8 * size, 0.8 * straw)
            self._ellipse(x, y - 0.7 * size, 0.75 * size, 0.8 * size, straw)
            self._ellipse(x, y - 0.7 * size, 0.35 * size, 0.38 * size, 0.85 * straw)
        else:
            colour = self._any(np.concatenate([_SAILS, _WOOL]))
            for dx, dy in rng.normal(0, (2.2, 0.6), (14, 2)):
                self._ellipse(x + dx * size, y + dy * size, 0.13 * size, 0.11 * size, colour)

    # Texture and light

    def _textured(self, image: Floats, label: NDArray[np.uint8]) -> Floats:
        """Give each class its grain: relief, blades, leaves; the same strength in every palette."""
        size = self.size
        coarse, fine = self._noise(20, 20), self.rng.standard_normal((size, size), np.float32)
        slopes = np.abs(self._noise(9, 6)) + 0.5 * np.abs(self._noise(20, 13)) + 0.25 * self._noise(56, 40)
        relief = (2 * slopes - np.roll(slopes, 2, 1) - np.roll(slopes, (1, 1), (0, 1))) * size / 40
        blades = fine + np.roll(fine, 1, 0) + np.roll(fine, 2, 0)
        leaves = np.sign(coarse + 1.3 * fine) * np.abs(fine) + coarse
        grain = np.zeros((size, size), np.float32)
        near = (0.3 + self.ys) * np.ones_like(grain)
        for kind, field, strength in (
            (MOUNTAIN, relief, 13),
            (MEADOW, 3.4 * blades * near + 6 * self._noise(9, 6), 1),
            (TREE, leaves, 10),
        ):
            of_kind = label == kind
            grain[of_kind] = strength * field[of_kind]
        return image + (grain + 1.4 * fine)[..., None]

    def _lit(self, image: Floats) -> NDArray[np.uint8]:
        """Apply the colour of the light, a vignette, contrast and sensor noise."""
        rng = self.rng
        corner = (self.ys - 0.5) ** 2 + (self.ys.T - 0.5) ** 2
        image = np.clip(image * (self.light * (1.06 - 0.28 * corner[..., None]) / (100 * 255)), 0, 1)
        image += rng.uniform(-0.1, 0.5) * image * (1 - image) * (2 * image - 1)  # an S-curve: contrast
        image = 255 * image + 1.5 * rng.standard_normal((self.size, self.size, 1), np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = colour.clip(0, 255).tolist()
    return int(red), int(green), int(blue)
