"""The recipe that makes a small transformer for a task from labelled text, from scratch.

`python -m targets.training --task sentiment --data train.tsv --eval dev.tsv --out DIR`
"""
