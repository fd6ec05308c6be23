"""The steps that `dcgan.bench` times: ours and PyTorch's."""
