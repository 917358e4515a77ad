"""`python -m nemo_ds2_adapters.cli`, for an environment whose scripts are not on the path."""

from nemo_ds2_adapters.cli import main

main()
