"""Files that `torch.save` wrote, read without executing anything of them."""
