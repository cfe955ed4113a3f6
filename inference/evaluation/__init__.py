"""Making trials: the frames of a video shown in several ways, for ``tasks/evaluate.py`` to measure."""
