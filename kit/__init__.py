"""What serves every ladder: reading and running scripts, results, documents, the site, the judge.

A ladder is data: `ladder.toml` in the folder of its scripts (the root's lies in the root), its pages in `pages/` beside
it, and the tests of its concepts in tests/<ladder>/. Of the ladders the kit knows one by name, the root; adding another
changes nothing here. kit/README.md says what a ladder.toml holds.
"""
