"""The model card: written from what was measured, so that it never tells of another training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.audio2motion.configs import AudioToMotionTaskConfig

_SOURCES = (
    ("LipNet__", "GRID sentences out of the LipNet repository", "GRID corpus: free for research, CC BY 4.0"),
    ("PC-AVS__", "VoxCeleb2 excerpts out of the PC-AVS repository", "VoxCeleb: research use; rights with the makers"),
    ("spectre__", "MEAD and LRS3 excerpts out of the SPECTRE repository", "MEAD, LRS3: non-commercial research"),
    (
        "SadTalker__",
        "HDTF excerpts out of the SadTalker repository",
        "HDTF: CC BY 4.0 annotations, media with the makers",
    ),
    ("2026_Spring_DSL", "political speeches out of a course repository", "none stated; broadcast material"),
    ("video-retalking__", "examples of video-retalking", "Apache-2.0 repository, media with the makers"),
    ("", "single clips out of other public repositories", "rights with their makers; some US government works"),
)


def model_card(config: AudioToMotionTaskConfig, facts: Mapping[str, Any], clip_names: Sequence[str]) -> str:
    """MODEL_CARD.md as text.

    Args:
        config: what the model was trained with.
        facts: ``extra`` of the checkpoint: counts and the cross-validation table.
        clip_names: clips it was trained on.
    """
    sections = [_intro(config, facts), _data(facts, clip_names)]
    if facts["cross_validation"]:
        sections.append(_accuracy(config, facts["cross_validation"]))
    return "\n".join([*sections, _LIMITS])


def _intro(config: AudioToMotionTaskConfig, facts: Mapping[str, Any]) -> str:
    model = config.model
    members = f"{model.convolutional} convolutional + {model.recurrent} recurrent networks"
    members += " + 1 ridge filter" if model.linear_reach >= 0 else ""
    return f"""# Model card: audio → motion

Speech to mouth motion of any speaker. Input: {facts["extractor"]} features at {facts["rate_hz"]:.0f} Hz
({model.n_features} values a row). Output: {len(model.units)} of {facts["n_expression"]} ARKit-style expression units,
each as its **deviation from this person's mouth at rest**; silence is 0. {members}, averaged; motion is
stretched about its mean by a gain measured on speakers left out, so that `mouth_amp` 1.0 opens the lips as far as
people do.

Made by `bash scripts/train_audio2motion.sh`; the resolved configuration is `config.yaml`, figures are in
`checkpoint.json`.
"""


def _data(facts: Mapping[str, Any], clip_names: Sequence[str]) -> str:
    lines = [
        "## Data",
        "",
        f"{facts['n_clips']} talking clips, {facts['n_speakers']} speaker groups, {facts['minutes']:.1f} minutes, "
        "tracked and fitted with this project;",
        "sound offsets corrected per clip. None of the media is part of this repository.",
        "",
        "| source | clips | terms of the source |",
        "|---|---|---|",
    ]
    left = list(clip_names)
    for prefix, title, terms in _SOURCES:
        matching = [name for name in left if name.startswith(prefix)]
        left = [name for name in left if not name.startswith(prefix)]
        if matching:
            lines.append(f"| {title} | {len(matching)} | {terms} |")
    lines += ["", "The speech encoder is Whisper tiny.en (MIT), used as it is.", ""]
    return "\n".join(lines)


def _accuracy(config: AudioToMotionTaskConfig, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    measures = list(next(iter(table.values())))
    lines = [
        f"## Error on speakers left out ({config.n_folds}-fold, whole speakers)",
        "",
        "Correlation over all frames of a clip with what was tracked in its video, mean / median over clips,",
        "[95 % interval over resampled speakers]; spread is that of the prediction over the true one (median over",
        "clips). Lip opening and mouth width are read off the face model's landmarks, so errors of the fit count too.",
        "",
        "| | " + " | ".join(f"{name} | spread" for name in measures) + " |",
        "|---|" + "---|" * (2 * len(measures)),
    ]
    for name, row in table.items():
        cells = [
            f"{v['r_mean']:.3f} / {v['r_median']:.3f} [{v['r_low']:.2f}, {v['r_high']:.2f}] | {v['spread_median']:.2f}"
            for v in row.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", '"ridge on the measures" predicts each measure itself from the same features and folds.', ""]
    return "\n".join(lines)


_LIMITS = """## Limits

* A few minutes of speech, mostly English, mostly frontal; other languages work less well.
* Lip rounding and protrusion are predicted less well than opening; closures can come out not quite shut.
* Clips whose sound did not match their mouth were dropped by a model of this kind, so the figures are a little kind.
* The tongue is not predicted. Laughing, singing and shouting were hardly seen.
* Trained on media for research; see LICENSE.md for what that means for the weights.
"""
