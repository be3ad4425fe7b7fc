"""Train a small neural network on handwritten digits with Adafactor, and draw what the optimizer reports.

Run it with `python -m adafactor demo`; `pip install "adafactor[demo]"` brings the libraries that it needs.
`network` and `network_of_torch` are examples to copy from.
"""
