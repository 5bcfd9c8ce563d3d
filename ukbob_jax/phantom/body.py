"""The body's outline: skin, fat shell, muscle and the cavity inside, from sections along the height."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom.person import Person
from ukbob_jax.phantom.shapes import Canvas

# Surface of the muscles, reference body, mm: z, centre y, half width, half depth
_TORSO = np.array(
    [
        (330, -12, 150, 84),
        (365, -12, 160, 92),
        (400, -14, 166, 99),
        (440, -13, 165, 102),
        (490, -7, 155, 97),
        (540, -1, 140, 91),
        (590, 3, 130, 89),
        (640, 4, 130, 92),
        (700, 3, 136, 98),
        (760, 1, 146, 103),
        (820, -1, 153, 103),
        (880, -5, 170, 100),
        (930, -12, 193, 90),
        (965, -17, 184, 78),
        (990, -20, 138, 66),
        (1010, -17, 82, 60),
        (1040, -10, 62, 60),
        (1130, -8, 62, 64),
    ]
)
# Limbs, right side: z, centre x, centre y, half width, half depth
_LEG = np.array(
    [
        (-180, 74, -12, 44, 52),
        (-60, 78, -8, 44, 54),
        (0, 81, -3, 47, 55),
        (60, 82, 0, 49, 56),
        (150, 84, 2, 60, 66),
        (250, 86, 0, 72, 77),
        (330, 86, -5, 80, 84),
        (430, 86, -8, 80, 88),
    ]
)
_ARM = np.array(
    [
        (250, 234, 35, 10, 8),
        (300, 233, 34, 24, 16),
        (400, 232, 28, 28, 24),
        (500, 230, 15, 33, 34),
        (600, 224, 2, 37, 40),
        (690, 216, -8, 38, 43),
        (800, 206, -14, 40, 46),
        (900, 193, -16, 44, 50),
        (960, 178, -17, 44, 46),
    ]
)
# Subcutaneous fat, mm: z, torso, and share of it that lies behind
_FAT = np.array(
    [
        (-180, 10, 0.5),
        (0, 11, 0.5),
        (200, 16, 0.5),
        (360, 24, 0.6),
        (440, 29, 0.65),
        (540, 26, 0.5),
        (640, 21, 0.45),
        (760, 16, 0.45),
        (880, 14, 0.5),
        (980, 9, 0.6),
        (1040, 5, 0.5),
        (1130, 5, 0.5),
    ]
)
# Inner wall of chest, belly and pelvis: z, centre y, half width, half depth
_CAVITY = np.array(
    [
        (372, -12, 26, 24),
        (390, -8, 44, 46),
        (425, -2, 60, 62),
        (460, 2, 84, 66),
        (500, 8, 102, 66),
        (540, 12, 112, 68),
        (590, 14, 113, 70),
        (640, 11, 114, 75),
        (700, 5, 121, 83),
        (760, 2, 128, 88),
        (820, 0, 127, 86),
        (880, -4, 120, 79),
        (930, -10, 106, 64),
        (960, -14, 88, 50),
        (985, -18, 62, 36),
        (1000, -18, 36, 22),
    ]
)
_BELLY = np.array(
    [(500, 0.0), (560, 0.7), (620, 1.0), (700, 0.8), (770, 0.2), (820, 0.0)]
)  # z, share of visceral


def _at(table: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """Columns of a table at heights z, each (1, 1, z) float32."""
    return [
        np.interp(z, table[:, 0], table[:, i]).astype(np.float32)[None, None]
        for i in range(1, table.shape[1])
    ]


def _outward(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the centre in units of a rounded-square section: 1 on its outline."""
    u, v = u * u, v * v
    return np.sqrt(np.sqrt(u * u + v * v + 1.2 * u * v) + 1e-6)


def _depth(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How deep below the outline a point lies, mm along the ray from the centre; negative outside."""
    return np.sqrt(x * x + y * y) * (1 / _outward(x / a, y / b) - 1)


class Outline:
    """The sections of one subject, as functions of the reference coordinates."""

    def __init__(self, canvas: Canvas, person: Person) -> None:
        self.canvas, self.person = canvas, person
        self.z = canvas.rigid[2]
        self.belly = np.interp(self.z, *_BELLY.T).astype(np.float32)[None, None] * person.visceral_mm
        width = np.interp(self.z, (400, 520, 800, 950), (person.hips, 1.0, 1.0, person.shoulders))
        self.width = width.astype(np.float32)[None, None]

    def wall(self, z: float, x: np.ndarray | float, outside_mm: float = 0.0) -> np.ndarray:
        """Front y of the chest wall, `outside_mm` in front of the cavity, at height z and width x."""
        cy, a, b = (float(np.interp(z, _CAVITY[:, 0], _CAVITY[:, i])) for i in (1, 2, 3))
        return cy + (b + outside_mm) * np.sqrt(np.clip(1 - (np.asarray(x) / (a + outside_mm)) ** 2, 0, 1))

    def _slices(self, low: float, high: float) -> slice:
        return slice(*np.searchsorted(self.z, (low, high)))

    def _paint(self, where: slice, depth: np.ndarray, fat: np.ndarray, part: slice = slice(None)) -> None:
        view = self.canvas.label[part, :, where]
        outer = depth > -fat
        view[outer & (view == 0)] = anatomy.IDS["subcutaneous_fat"]
        view[depth > 0] = anatomy.IDS["muscle"]

    def _fat(self, where: slice, y: np.ndarray) -> np.ndarray:
        thickness, behind = _at(_FAT, self.z[where])
        share = 1 + np.clip(y / 60, -1, 1) * (1 - 2 * behind)
        return thickness * share * np.float32(self.person.subcutaneous)

    def draw(self) -> None:
        """Skin, fat and muscle of torso and limbs."""
        self._torso()
        for side in (1, -1):
            self._limb(_LEG, side, -200, 430, 0.75)
            self._limb(_ARM, side, 250, 962, 0.6)
        if self.person.sex == "F":
            self._breasts()

    def _torso(self) -> None:
        where = self._slices(325, 2000)
        x, y, _ = (field[:, :, where] for field in self.canvas.fields)
        z = self.z[where]
        cy, a, b = _at(_TORSO, z)
        belly = self.belly[:, :, where]
        a, b, cy = a * self.width[:, :, where] + belly * 0.5, b + belly / 2, cy + belly / 2
        depth = _depth(x, y - cy, a, b)
        depth -= (np.clip(402 - z, 0, None) ** 2).astype(np.float32)[
            None, None
        ] * 0.03  # rounds the trunk off below
        self._paint(where, depth, self._fat(where, y))

    def _limb(self, table: np.ndarray, side: int, low: float, high: float, fat_share: float) -> None:
        where = self._slices(low, high)
        half = slice(*np.searchsorted(self.canvas.rigid[0], ((0, 400) if side > 0 else (-400, 0))))
        x, y, _ = (field[half, :, where] for field in self.canvas.fields)
        cx, cy, a, b = _at(table, self.z[where])
        width = self.width[:, :, where]
        person = self.person
        if table is _ARM:  # arms hang outside the fat of the trunk
            cx = cx * width + (person.subcutaneous - 1) * 14 + self.belly[:, :, where] * 0.3
        depth = _depth(
            side * x - cx * (width if table is _LEG else 1), y - cy, a * person.muscle, b * person.muscle
        )
        self._paint(where, depth, self._fat(where, y) * np.float32(fat_share), half)

    def _breasts(self) -> None:
        canvas, size = self.canvas, float(np.clip(24 * self.person.subcutaneous, 14, 42))
        for side in (1, -1):
            front = float(self.wall(850, 65.0, 16.0))
            radius = np.array([50.0, size + 12, 48.0])
            center = np.array([65.0 * side, front, 848.0])
            where = canvas.box(center - radius, center + radius)
            x, y, z = (field[where] for field in canvas.fields)
            q = ((x - center[0]) / radius[0]) ** 2 + ((y - center[1]) / radius[1]) ** 2
            view = canvas.label[where]
            view[(q + ((z - center[2]) / radius[2]) ** 2 < 1) & (view == 0)] = anatomy.IDS["subcutaneous_fat"]

    def cavity(self, low: float, high: float) -> tuple[tuple[slice, ...], np.ndarray]:
        """Depth inside the cavity wall, mm, between two heights; and the box of voxels it is given on."""
        canvas = self.canvas
        where = canvas.box(np.array([-140.0, -110.0, low]), np.array([140.0, 140.0, high]))
        x, y, z = (field[where] for field in canvas.fields)
        cy, a, b = _at(_CAVITY, self.z[where[2]])
        belly = self.belly[:, :, where[2]]
        depth = _depth(x, y - cy - belly / 2, a * self.width[:, :, where[2]] + belly * 0.5, b + belly / 2)
        return where, np.where((z > low) & (z < high), depth, np.float32(-1))

    def ring(self, z: float, angle: float, outside_mm: float) -> tuple[float, float, float]:
        """Point of the right chest wall at an angle (radians) from the spine, `outside_mm` outside the cavity."""
        cy, a, b = (float(np.interp(z, _CAVITY[:, 0], _CAVITY[:, i])) for i in (1, 2, 3))
        return (a + outside_mm) * np.sin(angle), cy - (b + outside_mm) * np.cos(angle), z
