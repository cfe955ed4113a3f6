"""HuBERT's way of cutting, with a network of the same field in its place; the real class when transformers is here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.extract_hubert import HubertExtractor, row_count
from modules.commons.errors import BackendUnavailableError, ModelFileError
from modules.structures.audio import AudioClip


class FieldNetwork(torch.nn.Module):
    """Mean, first and last of the 400 samples that a row sees; notes what it was given."""

    config = SimpleNamespace(hidden_size=3)
    heard: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.heard = []

    def forward(self, samples: torch.Tensor) -> SimpleNamespace:
        self.heard.append(samples.shape[1])
        fields = samples.unfold(1, 400, 320)
        state = torch.stack([fields.mean(-1), fields[..., 0], fields[..., -1]], dim=-1)
        return SimpleNamespace(last_hidden_state=state)


@pytest.fixture
def network(monkeypatch, tmp_path):
    network = FieldNetwork()
    loader = SimpleNamespace(from_pretrained=lambda folder, local_files_only: network)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(HubertModel=loader))
    (tmp_path / "config.json").write_text("{}")
    return network


def test_pieces_of_1000_rows_of_the_normalised_whole(network, tmp_path):
    samples = (np.random.default_rng(0).standard_normal(2 * 320_000 + 5_000) * 0.1 + 0.3).astype(np.float32)
    extractor = HubertExtractor(tmp_path)
    features = extractor.extract(AudioClip(samples, 16_000))
    assert network.heard == [320_080, 320_080, 5_000]
    assert features.values.shape == ((len(samples) - 80) // 320, 3) and extractor.width == 3
    assert features.times_s[0] == pytest.approx(0.0125)
    normal = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    for row in (0, 999, 1000, 2000, len(features) - 1):
        field = normal[320 * row : 320 * row + 400]
        np.testing.assert_allclose(features.values[row], [field.mean(), field[0], field[-1]], atol=1e-4)


@pytest.mark.parametrize(("n_samples", "rows"), [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (320_000, 999)])
def test_rows(network, tmp_path, n_samples, rows):
    assert row_count(n_samples) == rows
    clip = AudioClip(np.ones(n_samples, np.float32), 16_000)
    assert HubertExtractor(tmp_path).extract(clip).values.shape == (rows, 3)


def test_real_class(tmp_path):
    """A small random model of transformers' own class: same rows, same values as one call on the normalised sound."""
    transformers = pytest.importorskip("transformers")
    config = transformers.HubertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        do_stable_layer_norm=True, feat_extract_norm="layer", num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.HubertModel(config).eval()
    model.save_pretrained(tmp_path)
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    found = HubertExtractor(tmp_path).extract(AudioClip(samples, 16_000)).values
    normal = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
    with torch.inference_mode():
        expected = model(normal).last_hidden_state[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_missing_model_is_not_downloaded_but_told(network, tmp_path):
    with pytest.raises(ModelFileError, match=r"fetch it .* with: bash scripts/download_models\.sh hubert"):
        HubertExtractor(tmp_path / "none")


def test_missing_package_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendUnavailableError, match="pip install transformers"):
        HubertExtractor(tmp_path)


def test_a_model_that_cannot_be_read(monkeypatch, tmp_path):
    def fail(folder, local_files_only):
        raise OSError("no file named pytorch_model.bin\nfound in it")

    loader = SimpleNamespace(HubertModel=SimpleNamespace(from_pretrained=fail))
    monkeypatch.setitem(sys.modules, "transformers", loader)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="cannot be read") as caught:
        HubertExtractor(tmp_path)
    assert "\n" not in str(caught.value)
