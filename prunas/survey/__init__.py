"""From a network to a `Survey`: what can vary, what is tied to what, what it costs.

`trace` records the network's graph, `labels` runs it with channel labels, `ledger` keeps the books and condenses
them into groups, and `survey` adds gates, blocks, stages and costs, then builds random points and compares.
"""
