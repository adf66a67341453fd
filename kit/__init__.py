"""What serves every ladder: reading and running scripts, results, documents, the site, the judge.

A ladder is data: `ladder.toml` in the folder of its scripts (the root's lies in the root), its pages in `pages/` beside
it, and the tests of its concepts in tests/<ladder>/. The kit knows no ladder by name, and adding one changes nothing
here. kit/README.md says what a ladder.toml holds.
"""
