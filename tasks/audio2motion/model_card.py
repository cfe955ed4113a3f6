"""The model card: written from what was measured, so that it never tells of another training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.audio2motion.configs import AudioToMotionTaskConfig

_SOURCES = (
    ("LipNet__", "LipNet's repository (GRID sentences)", "MIT (code); GRID corpus"),
    ("PC-AVS__", "PC-AVS' repository (VoxCeleb2 excerpts)", "CC BY 4.0 repository; VoxCeleb2 media"),
    ("spectre__", "SPECTRE's repository (MEAD and LRS3 samples)", "CC BY-NC-SA 4.0; MEAD and LRS3 media"),
    ("SadTalker__", "SadTalker's repository (HDTF excerpts)", "Apache-2.0 repository; media from community users"),
    ("2026_Spring_DSL", "a course's repository (political speeches)", "none stated"),
    ("video-retalking__", "video-retalking's examples", "Apache-2.0 repository"),
    ("", "single clips of other public repositories", "MIT, Apache-2.0, or none stated; some US government works"),
)
"""Start of a clip's name, where it comes from, what its repository says."""


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
    members = f"{model.convolutional} convolutional and {model.recurrent} recurrent network(s)"
    members += ", 1 ridge filter" if model.linear_reach >= 0 else ""
    return f"""# Model card: audio → motion

Speech to mouth motion of any speaker. Input: {facts["extractor"]} features at {facts["rate_hz"]:.0f} Hz
({model.n_features} values a row). Output: {len(model.units)} of {facts["n_expression"]} ARKit-style expression units,
each as its **deviation from this person's mouth at rest**; silence is 0.
Inside: {members}, averaged.
Motion is stretched about its mean by a gain measured on speakers left out, so that `mouth_amp` 1.0 opens the lips as
far as people do.

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
        "| source | clips | licence of that repository (the media's rights lie with their makers) |",
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
        cells = [_cell(figures) for figures in row.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        '"ridge on the measures" predicts each measure itself from the same features and folds; "last rendering" is',
        "the same speech equalised, 8 to 25 dB over noise, at another place in the encoder's window.",
        "",
    ]
    return "\n".join(lines)


def _cell(figures: Mapping[str, float]) -> str:
    spread = f"{figures['spread_median']:.2f}" if "spread_median" in figures else "–"
    interval = f"[{figures['r_low']:.2f}, {figures['r_high']:.2f}]"
    return f"{figures['r_mean']:.3f} / {figures['r_median']:.3f} {interval} | {spread}"


_LIMITS = """## Limits

* A few minutes of speech, mostly English, mostly frontal; other languages work less well.
* Lip rounding and protrusion are predicted less well than opening; closures can come out not quite shut.
* Clips whose sound did not match their mouth were dropped by a model of this kind, so the figures are a little kind.
* The tongue is not predicted. Laughing, singing and shouting were hardly seen.
* Trained on media for research; see LICENSE.md for what that means for the weights.
"""
