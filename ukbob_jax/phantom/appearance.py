"""How the tissues look: water and fat signal, coil shading, station seams, noise."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom.grid import FIELD_OF_VIEW_MM
from ukbob_jax.phantom.person import Person
from ukbob_jax.phantom.warp import smooth_field

CONTRASTS = ("fat", "water", "in_phase", "opposed_phase")
STATIONS = 6

# Mean water and fat signal; classes not named here look like muscle
_AIR = (4.0, 3.0)
_SIGNAL: dict[str, tuple[float, float]] = {
    "background": _AIR,
    "spleen": (128, 5),
    "kidney_right": (172, 10),
    "kidney_left": (172, 10),
    "gallbladder": (95, 6),
    "liver": (178, 12),
    "stomach": (112, 18),
    "pancreas": (158, 40),
    "adrenal_gland_right": (120, 45),
    "adrenal_gland_left": (120, 45),
    "lung_upper_lobe_left": (18, 4),
    "lung_lower_lobe_left": (24, 4),
    "lung_upper_lobe_right": (18, 4),
    "lung_middle_lobe_right": (20, 4),
    "lung_lower_lobe_right": (24, 4),
    "esophagus": (118, 20),
    "trachea": (7, 4),
    "thyroid_gland": (182, 14),
    "intestine": (115, 30),
    "duodenum": (128, 22),
    "urinary_bladder": (72, 3),
    "prostate": (140, 14),
    "sacrum": (80, 115),
    "heart": (160, 12),
    "aorta": (205, 5),
    "pulmonary_vein": (185, 6),
    "brachiocephalic_trunk": (200, 6),
    "subclavian_artery_right": (195, 8),
    "subclavian_artery_left": (195, 8),
    "common_carotid_artery_right": (200, 8),
    "common_carotid_artery_left": (200, 8),
    "brachiocephalic_vein_left": (172, 8),
    "brachiocephalic_vein_right": (172, 8),
    "atrial_appendage_left": (178, 8),
    "superior_vena_cava": (176, 6),
    "inferior_vena_cava": (150, 6),
    "portal_vein_and_splenic_vein": (196, 8),
    "iliac_artery_left": (202, 8),
    "iliac_artery_right": (202, 8),
    "iliac_vena_left": (140, 10),
    "iliac_vena_right": (140, 10),
    "humerus_left": (40, 200),
    "humerus_right": (40, 200),
    "scapula_left": (60, 75),
    "scapula_right": (60, 75),
    "clavicula_left": (55, 85),
    "clavicula_right": (55, 85),
    "femur_left": (40, 215),
    "femur_right": (40, 215),
    "hip_left": (65, 135),
    "hip_right": (65, 135),
    "spinal_cord": (135, 12),
    "gluteus_maximus_left": (142, 28),
    "gluteus_maximus_right": (142, 28),
    "gluteus_medius_left": (150, 18),
    "gluteus_medius_right": (150, 18),
    "gluteus_minimus_left": (138, 24),
    "gluteus_minimus_right": (138, 24),
    "autochthon_left": (136, 34),
    "autochthon_right": (136, 34),
    "iliopsoas_left": (156, 10),
    "iliopsoas_right": (156, 10),
    "sternum": (85, 90),
    "costal_cartilages": (112, 16),
    "subcutaneous_fat": (26, 320),
    "muscle": (148, 13),
    "inner_fat": (42, 275),
    "IVD": (78, 8),
    "vertebra_body": (98, 92),
    "vertebra_posterior_elements": (76, 85),
    "spinal_channel": (62, 36),
    "bone_other": (68, 60),
}
_NOISE = 6.0  # spread of each of the two noise channels, in signal units


def _tissue_tables(person: Person, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """This subject's mean water and fat of each class, both float32 (256,)."""
    mean = np.array([_SIGNAL.get(name, _SIGNAL["muscle"]) for name in anatomy.NAMES.values()])
    mean[anatomy.IDS["liver"], 1] = mean[anatomy.IDS["liver"], 0] * person.liver_fat / (1 - person.liver_fat)
    spread = np.exp(rng.normal(0.0, (0.07, 0.12), mean.shape))
    paired = spread.copy()
    for a, b in anatomy.PAIRS:  # both sides of one subject look alike
        paired[b] = paired[a]
    gain = np.exp(rng.normal(0.0, 0.08, 2))
    tables = np.zeros((2, 256), np.float32)
    tables[:, : anatomy.NUM_CLASSES] = (mean * paired * gain).T
    return tables[0], tables[1]


def _soften(field: np.ndarray, side: float = 0.11) -> np.ndarray:
    """Partial volume: each voxel takes `side` of its signal from each neighbour, along all axes."""
    for axis in range(3):
        view = np.moveaxis(field, axis, 0)
        out = view * np.float32(1 - 2 * side)
        out[1:] += np.float32(side) * view[:-1]
        out[:-1] += np.float32(side) * view[1:]
        out[0] += np.float32(side) * view[0]
        out[-1] += np.float32(side) * view[-1]
        field = np.moveaxis(out, 0, axis)
    return field


def _shading(rng: np.random.Generator, axes_mm: list[np.ndarray]) -> np.ndarray:
    """Coil sensitivity times the gain of each station, `x y z` float32 about 1.

    Stations meet at seams where the gain steps, and each falls off a little towards its ends.
    """
    z = axes_mm[2]
    top = FIELD_OF_VIEW_MM[2]
    seams = top / STATIONS * np.arange(1, STATIONS) + rng.uniform(-25, 25, STATIONS - 1)
    station = np.searchsorted(seams, z)
    edges = np.concatenate([[0.0], seams, [top]])
    within = (z - edges[station]) / (edges[station + 1] - edges[station]) * 2 - 1  # -1 to 1 through a station
    gain = np.exp(rng.normal(0.0, 0.06, STATIONS))[station] * (1.04 - 0.1 * within**4)
    field = smooth_field(rng, axes_mm, 220.0)
    field *= np.float32(0.14)
    x, y = axes_mm[0] / 250, axes_mm[1] / 150
    field += (0.12 * (x[:, None] ** 2 + y**2)).astype(np.float32)[:, :, None]  # the coils lie around the body
    np.exp(field, out=field)
    field *= gain.astype(np.float32)
    return field


def render(
    label: np.ndarray, person: Person, rng: np.random.Generator, axes_mm: list[np.ndarray]
) -> np.ndarray:
    """Four Dixon contrasts of a label map.

    Without noise in-phase is water + fat and opposed-phase is |water - fat|. Each contrast then gets Rician noise of
    its own, as magnitude images have, so that the relation holds within the noise only.

    Args:
        label: `x y z`, uint8.
        person: whose liver fat to show.
        rng: draws tissue signals, texture, shading and noise.
        axes_mm: world coordinates of the voxel centres.
    Returns:
        `x y z c`, float32 whole numbers as a scanner stores them, in the order of `CONTRASTS`.
    """
    water, fat = (table[label] for table in _tissue_tables(person, rng))
    texture = smooth_field(rng, axes_mm, 22.0) * np.float32(0.05)
    texture += rng.standard_normal(label.shape, np.float32) * np.float32(0.06)
    texture += 1
    shading = _shading(rng, axes_mm)
    water = _soften(water * texture) * shading
    fat = _soften(fat * texture) * shading
    image = np.empty((*label.shape, len(CONTRASTS)), np.float32)
    for c, signal in enumerate((fat, water, water + fat, np.abs(water - fat))):
        signal += np.float32(_NOISE) * rng.standard_normal(label.shape, np.float32)
        signal *= signal
        other = rng.standard_normal(label.shape, np.float32)
        other *= np.float32(_NOISE)
        other *= other
        signal += other
        np.rint(np.sqrt(signal, out=signal), out=image[..., c])
    return image
