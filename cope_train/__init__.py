"""Train small planners for the COPE cascade (arXiv 2506.11578) and measure what they are worth."""

__version__ = "0.1.0"
