"""Files of `torch.save`, read without executing anything of them, and written; both without PyTorch."""
