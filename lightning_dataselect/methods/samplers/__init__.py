"""What is kept of scored samples: each sampler is a way to take ``k`` of them."""
