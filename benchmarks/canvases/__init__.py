"""Segmenters and detectors on canvases of digits at 40 % of their MACs: what each way of retraining loses."""
