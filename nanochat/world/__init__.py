"""The embedded world, part by part: what is true in it, the text, conversations and exams made of that.

What it is: pure functions of a seed, without torch or files. What it is not: shards and JSON lines
(`nanochat/sample_world.py` writes those), or the scoring of exams (`tasks/`).
Run: `python -m scripts.sample_world`.
"""
