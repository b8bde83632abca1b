"""How AI clients are pointed at the bridge: what to set where, and the files of some of them."""
