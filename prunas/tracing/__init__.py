"""From a network to a `Survey`: what can vary, what is tied to what, what it costs.

`trace` gets a network's graph, `propagate` runs it with channel labels by the `rules` of its operations, `ledger`
keeps the labels and condenses them into groups, `describe` adds `blocks`, `gates`, `stages` and the `terms` of the
cost, `verify` builds random points and compares, `settle` does so until a draft passes, and `survey` does all this
in order.
"""
