"""The model card of an audio → motion checkpoint, written from what training measured.

Reads: the table of speakers and licences; ``rewrite_card`` also the card it changes. Writes: that card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.audio2motion.speaker_table import SpeakerRow, read_speakers
from modules.commons.errors import ConfigError
from modules.commons.workspace import EGS
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.result_table import as_markdown

CARD = "MODEL_CARD.md"
SPEAKERS = EGS / "datasets" / "av_corpus" / "speakers.csv"
_ERROR_HEADING = "## Error on speakers left out"


def model_card(
    config: AudioToMotionTaskConfig,
    facts: Mapping[str, Any],
    clip_names: Sequence[str],
    speakers: Mapping[str, SpeakerRow] | None = None,
) -> str:
    """MODEL_CARD.md as text.

    Args:
        config: what the model was trained with.
        facts: ``extra`` of the checkpoint: counts and the cross-validation table.
        clip_names: clips it was trained on.
        speakers: says whose clips they are and on what terms; None = the project's own table.
    """
    table = read_speakers(SPEAKERS) if speakers is None else speakers
    sections = [_intro(config, facts), _data(facts, clip_names, table)]
    if facts["cross_validation"]:
        sections.append(_accuracy(config, facts["cross_validation"]))
    return "\n".join([*sections, _LIMITS])


def rewrite_card(checkpoint: Path, evaluation: Mapping[str, Any]) -> None:
    """Put the table of an evaluation (``result_table.as_json``) into a checkpoint's card, in place of what stood there.

    Raises:
        ConfigError: there is no card, or it has no section of errors.
    """
    path = checkpoint / CARD
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a trained checkpoint with --card") from error
    before, heading, rest = text.partition(_ERROR_HEADING)
    if not heading:
        raise ConfigError(f"{path}: has no section {_ERROR_HEADING[3:]!r}; train with n_folds of at least 2")
    _, next_heading, after = rest.partition("\n## ")
    section = f"{_ERROR_HEADING}\n\n{as_markdown(evaluation)}\nMeasured by `{evaluation['command']}`.\n"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(before + section + next_heading + after, encoding="utf-8")
    temporary.replace(path)


def _intro(config: AudioToMotionTaskConfig, facts: Mapping[str, Any]) -> str:
    model = config.model
    members = f"{model.convolutional} convolutional and {model.recurrent} recurrent network(s)"
    members += f", {model.variational} variational" if model.variational else ""
    members += ", 1 ridge filter" if model.linear_reach >= 0 else ""
    return f"""# Model card: audio → motion

Speech to mouth motion of any speaker. Input: {facts["extractor"]} features at {facts["rate_hz"]:.0f} Hz
({model.n_features} values a row). Output: {len(model.units)} of {facts["n_expression"]} ARKit-style expression units,
each as its **deviation from this person's mouth at rest**; silence is 0.
Inside: {members}, averaged.
Motion is stretched about its mean by two gains (lips, width) measured on speakers left out, so that `mouth_amp` 1.0
opens the lips as far as people do.

Made by `bash scripts/train_audio2motion.sh`; the resolved configuration is `config.yaml`, figures are in
`checkpoint.json`.
"""


def _data(facts: Mapping[str, Any], clip_names: Sequence[str], speakers: Mapping[str, SpeakerRow]) -> str:
    lines = [
        "## Data",
        "",
        f"{facts['n_clips']} talking clips, {facts['n_speakers']} speaker groups, {facts['minutes']:.1f} minutes, "
        "tracked and fitted with this project;",
        "sound offsets corrected per clip. None of the media is part of this repository. The licence is what the place",
        "of publication states; the rights in the recordings themselves mostly lie with others.",
        "",
        "| published in | recordings | clips | licence stated there |",
        "|---|---|---|---|",
    ]
    counts: dict[tuple[str, str, str], int] = {}
    for name in clip_names:
        row = speakers.get(name)
        key = ("not in the table of speakers", "–", "unknown") if row is None else (row.source, row.media, row.licence)
        counts[key] = counts.get(key, 0) + 1
    for (source, media, licence), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {source} | {media} | {count} | {licence} |")
    lines += ["", "The speech encoder is Whisper tiny.en (MIT), used as it is.", ""]
    return "\n".join(lines)


def _accuracy(config: AudioToMotionTaskConfig, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    measures = list(next(iter(table.values())))
    lines = [
        f"{_ERROR_HEADING} ({config.n_folds}-fold, whole speakers)",
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
* Clips whose sound did not match their mouth were set aside by a model of this kind, so the figures are a little kind.
* The tongue is not predicted. Laughing, singing and shouting were hardly seen.
* Trained on media for research; see LICENSE.md for what that means for the weights.
"""
