"""GeneFace++'s networks: names, shapes and results of the original, and its checkpoints read safely."""

from __future__ import annotations

import dataclasses
import functools
import pickle

import numpy as np
import pytest
import torch

from modules.audio2motion.official import detect_config, load_official
from modules.audio2motion.pitch import f0_to_coarse
from modules.audio2motion.speech_vae import (
    PitchContourVAEModel,
    SpeechInputs,
    SpeechVAEConfig,
    VAEModel,
    build_speech_vae,
)
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.errors import CheckpointError
from tests.modules.audio2motion.golden_vae import golden_state
from tests.modules.radnerfs import golden

CONFIGS = {
    "a2m_pitch_amp": SpeechVAEConfig(),
    "a2m_pitch_plain": SpeechVAEConfig(mouth_amp=False, eye_amp=False),
    "a2m_vae_plain": SpeechVAEConfig(n_condition=64, use_pitch=False, mouth_amp=False, eye_amp=False),
    "a2m_pitch_amp_idexp144": SpeechVAEConfig(n_motion=144),
}
RENDERED = [name for name in CONFIGS if not name.endswith("144")]
TINY = SpeechVAEConfig(
    n_audio=8, n_condition=6, vae=FlowVAEConfig(hidden=8, latent=4, encoder_layers=2, decoder_layers=2, flow_hidden=8)
)


@functools.cache
def golden_model(name: str):
    model = build_speech_vae(CONFIGS[name])
    model.load_state_dict(golden_state(model.state_dict()))
    return model.eval()


def golden_inputs(arrays) -> SpeechInputs:
    audio = torch.from_numpy(golden.symmetric(tuple(arrays["in_hubert_shape"]), "in.hubert"))
    return SpeechInputs(audio, torch.from_numpy(arrays["in_f0"]))


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_shapes_are_the_official_ones(name):
    manifest = golden.load_json("manifest_audio2motion")[name]
    model = build_speech_vae(CONFIGS[name])
    assert isinstance(model, PitchContourVAEModel if "pitch" in name else VAEModel)
    ours = {
        key: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for key, value in model.state_dict().items()
    }
    assert ours == manifest
    assert detect_config(model.state_dict()) == CONFIGS[name]


@pytest.mark.parametrize("name", RENDERED)
@torch.no_grad()
def test_motion_is_the_originals(name):
    arrays, model = golden.load(name), golden_model(name)
    inputs = golden_inputs(arrays)
    noise = torch.from_numpy(arrays["in_z"] * arrays["temperature"])
    np.testing.assert_allclose(model(inputs, noise), arrays["pred"], atol=1e-4)


@pytest.mark.parametrize("name", RENDERED)
@torch.no_grad()
def test_each_step_is_the_originals(name):
    arrays, model = golden.load(name), golden_model(name)
    condition = model.condition(golden_inputs(arrays))
    if "cond" in arrays:
        np.testing.assert_allclose(condition.transpose(1, 2), arrays["cond"], atol=1e-5)
    else:
        np.testing.assert_allclose(condition, arrays["mel_feat_bct"], atol=1e-5)
    np.testing.assert_allclose(model.vae.shrink(condition), arrays["g_sqz"], atol=1e-5)
    mask = torch.ones(1, 1, condition.shape[2])
    noise = torch.from_numpy(arrays["in_z"] * arrays["temperature"])
    if "zflow_reverse" in arrays:
        codes = model.vae.prior_codes(noise, condition, mask)
        np.testing.assert_allclose(codes, arrays["zflow_reverse"], atol=1e-4)
        back = model.vae.prior_flow(codes, model.vae.shrink(condition), mask[..., ::4])
        np.testing.assert_allclose(back, arrays["zflow_roundtrip"], atol=1e-4)


@pytest.mark.parametrize("name", RENDERED)
@torch.no_grad()
def test_training_pass_is_the_originals(name):
    arrays, model = golden.load(name), golden_model(name)
    motion = torch.from_numpy(golden.symmetric((1, 16, 64), "in.y"))
    made = model.reconstruct(motion, golden_inputs(arrays), torch.ones(1, 16), torch.from_numpy(arrays["in_eps"]))
    np.testing.assert_allclose(made.motion, arrays["train_x_recon"], atol=1e-4)
    np.testing.assert_allclose(made.posterior.mean.transpose(1, 2), arrays["train_m_q"], atol=1e-4)
    np.testing.assert_allclose(made.posterior.log_std.transpose(1, 2), arrays["train_logs_q"], atol=1e-4)
    assert float(made.divergence) == pytest.approx(float(arrays["train_kl"]), abs=1e-4)


def test_pitch_steps_are_the_originals():
    arrays = golden.load("f0_to_coarse")
    np.testing.assert_array_equal(f0_to_coarse(torch.from_numpy(arrays["f0"])), arrays["coarse"])


def test_pitch_must_be_a_frequency():
    assert f0_to_coarse(torch.tensor([[0.0, 49.0, 1e6]])).tolist() == [[1, 1, 255]]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="finite and not negative"):
            f0_to_coarse(torch.tensor([wrong]))


def test_temperature_and_seed():
    torch.manual_seed(0)
    model, inputs = build_speech_vae(TINY).eval(), SpeechInputs(torch.randn(1, 32, 8), torch.full((1, 32), 200.0))
    still = model.predict(inputs)
    torch.testing.assert_close(model.predict(inputs), still, rtol=0, atol=0)
    drawn = [model.predict(inputs, temperature=1.0, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    assert (drawn[0] - drawn[2]).abs().max() > 1e-3 and (drawn[0] - still).abs().max() > 1e-3
    small = model.predict(inputs, temperature=1e-4, generator=torch.Generator().manual_seed(1))
    assert (small - still).abs().max() < 1e-2 * (drawn[0] - still).abs().max()
    with pytest.raises(ValueError, match="generator"):
        model.predict(inputs, temperature=0.5)
    with pytest.raises(ValueError, match="0 or more"):
        model.predict(inputs, temperature=-1.0)
    with pytest.raises(ValueError, match="multiples of 8"):
        model.predict(SpeechInputs(inputs.audio[:, :30], inputs.f0_hz))


def test_wrong_configurations():
    with pytest.raises(ValueError, match="use_pitch"):
        SpeechVAEConfig(use_pitch=False)
    with pytest.raises(ValueError, match="even"):
        FlowVAEConfig(latent=3)
    with pytest.raises(ValueError, match="needs at least"):
        dataclasses.replace(TINY.vae, n_flows=0)
    with pytest.raises(ValueError, match="f0_hz"):
        build_speech_vae(TINY).condition(SpeechInputs(torch.zeros(1, 8, 8)))


OFFICIAL_TINY = dataclasses.replace(TINY, n_motion=144)


@pytest.fixture
def state():
    torch.manual_seed(0)
    return build_speech_vae(OFFICIAL_TINY).state_dict()


def as_parametrised(state):
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    renamed = {}
    for key, value in state.items():
        *path, last = key.split(".")
        renamed[".".join([*path, names.get(last, last)])] = value
    return renamed


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": {"model": s}, "global_step": 7, "checkpoint_callback_best": np.inf},
        lambda s: {"state_dict": {f"model.{key}": value for key, value in s.items()}},
        lambda s: {"state_dict": {"model": as_parametrised(s)}},
    ],
)
def test_a_checkpoint_in_any_of_its_forms(state, wrap, tmp_path):
    for step, saved in ((2000, {"state_dict": {}}), (10000, wrap(state))):
        file = tmp_path / f"model_ckpt_steps_{step}.ckpt"
        torch.save(saved, file, _use_new_zipfile_serialization=False)
    official = load_official(tmp_path)
    assert official.source.name == "model_ckpt_steps_10000.ckpt"
    assert official.hears_pitch and official.n_audio == 8
    rng = np.random.default_rng(0)
    audio, f0 = rng.standard_normal((27, 8)).astype(np.float32), np.full(27, 150.0, np.float32)
    motion = official.predict(audio, f0)
    assert motion.shape == (14, 64) and np.isfinite(motion).all()
    inputs = SpeechInputs(torch.from_numpy(audio[None, :24]), torch.from_numpy(f0[None, :24]))
    whole = official.model.predict(inputs)[0, :, 80:].detach()
    np.testing.assert_allclose(official.predict(audio[:24], f0[:24]), whole)
    with pytest.raises(ValueError, match="rows of 8"):
        official.predict(audio[:, :5], f0)
    with pytest.raises(ValueError, match="27 rows"):
        official.predict(audio, None)


class _Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"state_dict": {"model": {"radnerf.weight": torch.zeros(2)}}}, "not an audio-to-motion checkpoint"),
        ({"state_dict": {}}, "holds no 'state_dict'"),
        ([1, 2], "holds no 'state_dict'"),
        (_Payload(), "cannot be read"),
    ],
)
def test_other_files_are_refused(saved, message, tmp_path, capsys):
    file = tmp_path / "model_ckpt_steps_1.ckpt"
    if isinstance(saved, _Payload):
        file.write_bytes(pickle.dumps(saved, protocol=2))
    else:
        torch.save(saved, file)
    with pytest.raises(CheckpointError, match=message):
        load_official(file)
    assert "must not run" not in capsys.readouterr().out


def test_truncated_and_missing_checkpoints(state, tmp_path):
    file = tmp_path / "model_ckpt_steps_1.ckpt"
    torch.save({"state_dict": {"model": state}}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="download it again"):
        load_official(file)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_official(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no model_ckpt"):
        load_official(tmp_path / "empty")


def test_another_number_of_coefficients_is_refused(tmp_path):
    file = tmp_path / "model_ckpt_steps_1.ckpt"
    torch.save({"state_dict": {"model": build_speech_vae(dataclasses.replace(TINY, n_motion=52)).state_dict()}}, file)
    with pytest.raises(CheckpointError, match="predicts 52 values"):
        load_official(file)
