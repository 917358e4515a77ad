"""The embedded demo: a corpus the machine speaks itself, and what is trained on it.

Nothing outside this package imports it. The speech comes from espeak-ng, a GPLv3 program that only the optional
extra ``pip install 'nemo_ds2_adapters[demo]'`` brings.
"""
