"""Reading .tflite files: what is unpacked, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors import tflite_file
from data_gen.utils.mp_feature_extractors.networks import read_network_file
from data_gen.utils.mp_feature_extractors.tflite_file import densified, read_tflite
from modules.commons.errors import ModelFileError
from modules.commons.workspace import MEDIAPIPE_DIR
from tests.support.networks import PICTURE_NETWORKS

DENSE, CSR = 0, 1


def level(kind, size=0, segments=(), indices=()):
    return SimpleNamespace(
        Format=lambda: kind,
        DenseSize=lambda: size,
        ArraySegments=lambda: np.array(segments),
        ArraySegmentsType=lambda: 0,
        ArrayIndices=lambda: np.array(indices),
        ArrayIndicesType=lambda: 0,
    )


def sparsity(order, levels, blocks=()):
    return SimpleNamespace(
        TraversalOrderAsNumpy=lambda: np.array(order),
        BlockMap=lambda i: blocks[i],
        BlockMapLength=lambda: len(blocks),
        DimMetadata=lambda i: levels[i],
    )


@pytest.fixture
def plain_indices(monkeypatch):
    monkeypatch.setattr(tflite_file, "_index_array", lambda values, kind: values.astype(np.int64))


def test_compressed_rows_become_a_matrix(plain_indices):
    layout = sparsity((0, 1), [level(DENSE, 3), level(CSR, segments=(0, 2, 2, 3), indices=(0, 3, 1))])
    dense = densified(np.array([5.0, 6.0, 7.0]), (3, 4), layout)
    np.testing.assert_array_equal(dense, [[5, 0, 0, 6], [0, 0, 0, 0], [0, 7, 0, 0]])


def test_columns_may_come_before_rows(plain_indices):
    layout = sparsity((1, 0), [level(DENSE, 2), level(CSR, segments=(0, 1, 3), indices=(2, 0, 1))])
    dense = densified(np.array([5.0, 6.0, 7.0]), (3, 2), layout)
    np.testing.assert_array_equal(dense, [[0, 6], [0, 7], [5, 0]])


def test_blocks_are_laid_out_inside_their_dimension(plain_indices):
    levels = [level(DENSE, 2), level(CSR, segments=(0, 1, 2), indices=(1, 0)), level(DENSE, 2)]
    dense = densified(np.array([1.0, 2.0, 3.0, 4.0]), (2, 4), sparsity((0, 1, 2), levels, blocks=(1,)))
    np.testing.assert_array_equal(dense, [[0, 0, 1, 2], [3, 4, 0, 0]])


@pytest.mark.parametrize("network", PICTURE_NETWORKS, ids=str)
def test_weights_are_dense_and_single_precision(network):
    graph = read_tflite(*read_network_file(network.path, network.member))
    weights = [values for values in graph.constants.values() if values.ndim == 4]
    assert weights and all(values.dtype == np.float32 for values in weights)
    assert not {"DEQUANTIZE", "DENSIFY"} & {node.op for node in graph.nodes}
    assert graph.shapes[graph.input][0] == 1 and graph.outputs


def test_what_is_no_network_is_said_so():
    with pytest.raises(ModelFileError, match=r"^x is not a network: .*bash scripts/setup\.sh"):
        read_tflite(b"no network at all, but long enough", "x")
    with pytest.raises(ModelFileError, match="x is not a network"):
        read_tflite(b"", "x")


def test_a_file_cut_short_is_said_to_be_damaged():
    content = (MEDIAPIPE_DIR / "selfie_segmentation.tflite").read_bytes()
    with pytest.raises(ModelFileError, match=r"^x is a damaged \.tflite file"):
        read_tflite(content[:2000], "x")
