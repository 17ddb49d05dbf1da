"""Wrong configs and command lines of LightningCLI, told in one plain sentence.

A room below `comparison` and `cli`, because both hand a user's config to jsonargparse and must say what is wrong in it.
"""
