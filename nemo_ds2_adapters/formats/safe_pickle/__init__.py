"""Files that `torch.save` wrote, read without executing anything of them."""

from nemo_ds2_adapters.formats.safe_pickle.archive import OLD_FORMAT, TorchArchive, archive_in, open_archive
from nemo_ds2_adapters.formats.safe_pickle.unpickle import ClassName, Container, Names, unpickle

__all__ = [
    "OLD_FORMAT",
    "ClassName",
    "Container",
    "Names",
    "TorchArchive",
    "archive_in",
    "open_archive",
    "unpickle",
]
