"""The face mesh unrolled onto a cylinder: one picture in which every place of a face keeps its pixel in all frames.

Texel → triangle and barycentric weights are found once; a frame is then sampled by projecting its mesh, and a crop is
painted by looking up where each of its pixels lies on the cylinder.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import Fragments, interpolate, rasterize, vertex_normals
from modules.face_model.model import LABEL_EYE, LABEL_LIP, LABEL_MEMBRANE, FaceModel
from modules.radnerfs.surface import FacePose, PosedMesh, project_mesh
from modules.structures.cameras import crop_camera_matrix
from modules.structures.crops import CropMetadata
from modules.structures.face_coeffs import FaceModelCoeffs

TEXELS_PER_DM = 135.0
"""About what a crop of 256 px shows of a face, so that unrolling loses nothing."""
RADIUS_DM = 0.75
"""Of the cylinder; it only sets the texture's width."""
AXIS_Z_DM = -0.1
"""The cylinder's axis is vertical and stands this far before the head's origin."""
TOP_DM, BOTTOM_DM = 0.85, -1.05
HALF_ANGLE = 1.5
"""Rad to both sides of the nose; beyond are the ears."""
AROUND_DM = 0.3
"""How far around the face anything is said of the crop."""
BEHIND_DM = 0.06
"""A texel this much deeper than what its pixel sees is hidden by another part of the face."""
RIM_DM = 0.03
"""Nearer than half of this to the face's outline on the screen nothing is known: fits are not that good."""
GRAZING, FACING = 0.15, 0.4
"""Cosines to the camera below which a place is not seen at all, and above which it is seen well."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenTexture:
    """A frame sampled into the texture: float32 ``[h, w, 3]`` 0..1 and bool ``[h, w]``, which texels it shows."""

    rgb: NDArray[np.float32]
    seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PixelPlaces:
    """Where the pixels of a crop lie in the texture: float32 ``[S, S]`` texel x, y.

    ``facing`` 0..1 is how well each is seen; ``around`` 1 on the face and for ``AROUND_DM`` around it.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    facing: NDArray[np.float32]
    around: NDArray[np.float32]


class CanonicalTexture:
    """Maps between crops and the unrolled face of one person.

    Args:
        face_model: on the CPU, corrected for the person.
        coeffs: of the clip.
        metadata: where the crops lie.
    """

    def __init__(self, face_model: FaceModel, coeffs: FaceModelCoeffs, metadata: CropMetadata) -> None:
        self._model, self._coeffs, self._metadata = face_model, coeffs, metadata
        self._triangles = face_model.triangles.numpy()
        canonical = face_model.canonical_vertices.numpy()
        self._places, outwards = _unrolled(canonical)
        self.size_hw = (round((TOP_DM - BOTTOM_DM) * TEXELS_PER_DM), round(2 * HALF_ANGLE * RADIUS_DM * TEXELS_PER_DM))
        height, width = self.size_hw
        # nearest to the viewer of the unrolled face = farthest from the axis
        self._texels = rasterize(self._places, 3.0 - outwards, self._triangles, (0, 0, width, height))
        self._normals = vertex_normals(canonical, self._triangles)
        labels = face_model.labels.numpy()
        self.lively = self._spread_labels(np.isin(labels, (LABEL_LIP, LABEL_MEMBRANE, LABEL_EYE)))

    def _spread_labels(self, vertices: NDArray[np.bool_]) -> NDArray[np.bool_]:
        values = interpolate(self._texels, self._triangles, vertices[:, None].astype(np.float32))
        return np.asarray(values[..., 0] > 0.2)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Texels ``[h, w]`` that belong to the face."""
        return self._texels.covered

    def mesh(self, row: int, size: int) -> PosedMesh:
        """The posed mesh of frame ``row`` in the pixels of its crop at ``[size, size]``."""
        coeffs, metadata = self._coeffs, self._metadata
        scale = np.diag([size / metadata.crop_size, size / metadata.crop_size, 1.0])
        camera = crop_camera_matrix(coeffs.camera, scale @ metadata.crop_from_frame(row))
        pose = FacePose(coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row])
        return project_mesh(self._model, pose, camera)

    def sample(self, rgb: NDArray[np.float32], row: int) -> SeenTexture:
        """Unroll the crop ``[S, S, 3]`` of frame ``row``."""
        size = rgb.shape[0]
        mesh = self.mesh(row, size)
        seen_by_pixels, facing = self._rasterized(mesh, size)
        attributes = np.column_stack([mesh.pixels, mesh.depth])
        spread = interpolate(self._texels, self._triangles, attributes)
        x, y, depth = spread[..., 0] - 0.5, spread[..., 1] - 0.5, spread[..., 2]
        colours = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        nearest = np.where(seen_by_pixels.covered, seen_by_pixels.depth, 1e3).astype(np.float32)
        front = cv2.remap(nearest, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=-1e3)
        turned = cv2.remap(facing, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        seen = self.covered & (np.abs(front - depth) < BEHIND_DM) & (turned > 0.5)
        return SeenTexture(np.asarray(colours, np.float32), seen)

    def places(self, row: int, size: int) -> PixelPlaces:
        """Where every pixel of the crop of frame ``row`` lies in the texture."""
        mesh = self.mesh(row, size)
        fragments, facing = self._rasterized(mesh, size)
        values = interpolate(fragments, self._triangles, self._places, fill=-1e4)
        away = cv2.distanceTransform((facing <= 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        around = (away < AROUND_DM * _pixels_per_dm(mesh)).astype(np.float32)
        return PixelPlaces(values[..., 0] - 0.5, values[..., 1] - 0.5, facing, around)

    def placement(self, row: int, size: int) -> NDArray[np.float32]:
        """Middle and size of the head in the crop of frame ``row``, ``[3]`` px: frames near in it look alike around."""
        pixels = self.mesh(row, size).pixels
        middle = pixels.mean(axis=0)
        return np.array([*middle, np.linalg.norm(pixels - middle, axis=1).mean()], np.float32)

    def lip_shape(self, row: int) -> NDArray[np.float32]:
        """Head-space places of the lips' loops, ``[N, 3]`` dm: what an open or shut mouth is."""
        with torch.no_grad():
            loops = torch.cat([self._model.inner_lip, self._model.outer_lip])
            basis = self._model.expression_basis[loops]
            return (basis @ torch.as_tensor(self._coeffs.expression[row])).numpy()

    def _rasterized(self, mesh: PosedMesh, size: int) -> tuple[Fragments, NDArray[np.float32]]:
        """What the pixels see, and how squarely (0..1)."""
        fragments = rasterize(mesh.pixels, mesh.depth, self._triangles, (0, 0, size, size), cull_back_faces=True)
        cosine = _cosines(mesh, self._triangles)
        mouth = self._model.region_weights["mouth"].numpy() > 0
        cosine[mouth] = np.maximum(cosine[mouth], FACING)  # lips roll in, the mouth's inside is a hole
        face = self._model.region_weights["face"].numpy() > 0
        values = interpolate(fragments, self._triangles, np.column_stack([cosine, face.astype(np.float64)]))
        facing = np.clip((values[..., 0] - GRAZING) / (FACING - GRAZING), 0, 1)
        on_face = (values[..., 1] > 0.5).astype(np.uint8)
        inside = cv2.distanceTransform(on_face, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        rim = RIM_DM * _pixels_per_dm(mesh)
        return fragments, (facing * np.clip(inside / rim - 0.5, 0, 1)).astype(np.float32)


def _unrolled(vertices: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Texel places ``[V, 2]`` of canonical vertices and their distance from the cylinder's axis ``[V]`` dm."""
    x, y, z = vertices.astype(np.float64).T
    angle = np.arctan2(x, z - AXIS_Z_DM)
    places = np.stack([(angle + HALF_ANGLE) * RADIUS_DM, TOP_DM - y], axis=1) * TEXELS_PER_DM
    return places.astype(np.float32), np.hypot(x, z - AXIS_Z_DM)


def _cosines(mesh: PosedMesh, triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """How squarely each vertex faces the camera, ``[V]``: by how its surroundings shrink on the screen."""
    places = np.column_stack([mesh.pixels[:, 0], -mesh.pixels[:, 1], -mesh.depth])
    # px per dm at the head's distance, so that screen and depth have one unit
    places[:, 2] *= _pixels_per_dm(mesh)
    return vertex_normals(places, triangles)[:, 2]


def _pixels_per_dm(mesh: PosedMesh) -> float:
    """How large a decimetre of the head is on the screen, by the spread of its vertices across."""
    on_screen, in_head = mesh.pixels - mesh.pixels.mean(axis=0), mesh.head - mesh.head.mean(axis=0)
    return float(np.linalg.norm(on_screen[:, 1]) / max(np.linalg.norm(in_head[:, 1]), 1e-6))
