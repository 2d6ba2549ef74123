"""Problems in, a plan set out."""
