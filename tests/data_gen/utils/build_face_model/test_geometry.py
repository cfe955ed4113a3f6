"""What calibration may do to the mean shape."""

import numpy as np

from data_gen.utils.build_face_model.geometry import _same_size


def test_a_shape_keeps_its_size_and_place():
    generator = np.random.default_rng(0)
    model = generator.normal(size=(50, 3))
    rows = np.arange(50) < 30
    bump = 0.01 * generator.normal(size=(50, 3))
    back = _same_size(1.2 * (model + bump) + [0.3, -0.1, 2.0], model, rows)
    assert np.abs(back - model - bump)[rows].max() < 0.02
    np.testing.assert_allclose(back[rows].mean(axis=0), model[rows].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(_same_size(model, model, rows), model, atol=1e-12)
