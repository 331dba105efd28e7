"""Annotations of other programs into mim's own form: `python -m mim.data.import_labels`."""
