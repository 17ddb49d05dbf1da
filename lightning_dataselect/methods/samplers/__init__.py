"""The samplers: each is a way to take ``k`` of scored samples."""
